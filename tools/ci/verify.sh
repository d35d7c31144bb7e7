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
# There, report.txt is the result, talk.txt what was said beside it, and summary.md Markdown for a comment or the summary of a job;
# with programs that write them, report.html, report.xml (JUnit) and report.json as well.
# The exit status is that of `mlconv verify`: 0 within the tolerance, 1 beyond it, 2 not done.
set -euo pipefail

if [ -z "${PACKAGE:-}" ] || [ -z "${AGAINST:-}" ]; then
  echo "PACKAGE and AGAINST must name the package and its source" >&2
  exit 2
fi
mlconv=${MLCONV:-mlconv}
reports=${REPORTS:-mlconv-reports}
mkdir -p "$reports"
rm -f "$reports"/{report.txt,talk.txt,summary.md,report.html,report.xml,report.json}

options=()
while IFS= read -r option; do
  if [ -n "$option" ]; then options+=("$option"); fi
done <<<"${OPTIONS:-}"

known=$("$mlconv" verify --help)
for form in html:report.html markdown:summary.md junit:report.xml json:report.json; do
  if grep -q -- "--${form%%:*} <" <<<"$known"; then
    options+=("--${form%%:*}=$reports/${form#*:}")
  fi
done

status=0
"$mlconv" verify "$PACKAGE" --against "$AGAINST" ${options[@]+"${options[@]}"} \
  >"$reports/report.txt" 2>"$reports/talk.txt" || status=$?
cat "$reports/talk.txt" >&2
cat "$reports/report.txt"

if [ ! -s "$reports/summary.md" ]; then
  case $status in
    0) verdict="within the tolerance" ;;
    1) verdict="beyond the tolerance" ;;
    *) verdict="not compared" ;;
  esac
  {
    printf '### %s: %s\n\n' "$(basename "$PACKAGE")" "$verdict"
    # Four spaces make code of a line, whatever is in it.
    sed 's/^/    /' "$reports/report.txt" "$reports/talk.txt"
  } >"$reports/summary.md"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$reports/summary.md" >>"$GITHUB_STEP_SUMMARY"; fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then printf 'status=%s\nreports=%s\n' "$status" "$reports" >>"$GITHUB_OUTPUT"; fi
exit "$status"
