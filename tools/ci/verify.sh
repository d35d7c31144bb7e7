#!/usr/bin/env bash
# Holds a package against the model that it comes from, and leaves reports: what the GitHub action of this repository runs, and
# what any other service can.
#
#   PACKAGE    the package
#   AGAINST    its source
#   OPTIONS    further options of `mlconv verify`, one a line, such as --sample=in.npz
#   MLCONV     the program; by default that of the PATH
#   REPORTS    the folder of the reports; by default mlconv-reports
#
# There, report.txt is the result, talk.txt what was said beside it, summary.md Markdown for a comment or the summary of a job,
# report.html a page, and report.xml JUnit. Where it could not be done, there is no page and no JUnit.
# The exit status is that of `mlconv verify`: 0 within the tolerance, 1 beyond it, 2 not done, which includes that the program is
# missing or was killed, and that a report cannot be written.
set -euo pipefail
# A step of its own that fails is no verdict.
trap 'exit 2' ERR

if [ -z "${PACKAGE:-}" ] || [ -z "${AGAINST:-}" ]; then
  echo "PACKAGE and AGAINST must name the package and its source" >&2
  exit 2
fi
mlconv=${MLCONV:-mlconv}
reports=${REPORTS:-mlconv-reports}
mkdir -p "$reports"
rm -f "$reports"/{report.txt,talk.txt,summary.md,report.html,report.xml}

options=(--html="$reports/report.html" --markdown="$reports/summary.md" --junit="$reports/report.xml")
while IFS= read -r option; do
  if [ -n "$option" ]; then options+=("$option"); fi
done <<<"${OPTIONS:-}"

status=0
"$mlconv" verify "$PACKAGE" --against "$AGAINST" "${options[@]}" \
  >"$reports/report.txt" 2>"$reports/talk.txt" || status=$?
if [ "$status" -gt 2 ]; then
  echo "\`$mlconv\` ended with the status $status" >>"$reports/talk.txt"
  status=2
fi
cat "$reports/talk.txt" >&2
cat "$reports/report.txt"

if [ ! -s "$reports/summary.md" ]; then
  {
    printf '### Not compared\n\n'
    # Four spaces make code of a line, whatever is in it; a carriage return would begin another one.
    { printf '%s\n\n' "$(basename "$PACKAGE" | tr '\n' ' ')" && cat "$reports/talk.txt"; } |
      LC_ALL=C tr '\000-\010\013-\037\177' '[ *]' | sed 's/^/    /'
  } >"$reports/summary.md"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$reports/summary.md" >>"$GITHUB_STEP_SUMMARY"; fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then printf 'status=%s\nreports=%s\n' "$status" "$reports" >>"$GITHUB_OUTPUT"; fi
exit "$status"
