// Opens pages in Chromium, as people do: from disk, in light and dark, wide and narrow, by keyboard, in print, and without scripts.
//
//   npm ci && node check.mjs FOLDER [SCREENSHOTS]
//
// FOLDER has NAME.json, NAME.html, NAME.md and NAME.xml, as `cargo test --test report` leaves them in target/tmp/report. CHROMIUM is the
// browser, by default /usr/bin/chromium. Reports are held to docs/report.schema.json, pages to axe, and JUnit files to junit.xsd where
// there is xmllint. The last line is `N passed, M failed`; the exit status is 0 only where nothing failed.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import Ajv2020 from "ajv/dist/2020.js";
import MarkdownIt from "markdown-it";
import puppeteer from "puppeteer-core";

const [folder, pictures] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node check.mjs FOLDER [SCREENSHOTS]");
  process.exit(2);
}
const here = import.meta.dirname;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const schema = JSON.parse(readFileSync(join(here, "../../docs/report.schema.json"), "utf8"));
const isValid = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true }).compile(schema);
const WIDTHS = { desktop: [1280, 800], narrow: [420, 900] };
// These are made to break renderings, and are not what the program writes.
const NOT_REPORTS = new Set(["hostile", "nulls"]);

let passed = 0;
let failed = 0;
function check(what, ok, detail = "") {
  if (ok) passed++;
  else {
    failed++;
    console.log(`FAILED ${what}${detail ? `: ${detail}` : ""}`);
  }
}

const names = readdirSync(folder).filter((f) => f.endsWith(".html")).map((f) => f.slice(0, -5)).sort();
if (pictures) mkdirSync(pictures, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"],
});

async function open(name, scheme, size, scripts = true) {
  const page = await browser.newPage();
  const faults = [];
  page.on("console", (m) => ["error", "warn"].includes(m.type()) && faults.push(m.text()));
  page.on("pageerror", (e) => faults.push(String(e)));
  page.on("request", (r) => !/^(file|data):/.test(r.url()) && faults.push(`asks for ${r.url()}`));
  page.on("dialog", (d) => (faults.push(`dialog ${d.message()}`), d.dismiss()));
  await page.setJavaScriptEnabled(scripts);
  await page.setViewport({ width: size[0], height: size[1] });
  await page.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: scheme },
    { name: "prefers-reduced-motion", value: "reduce" },
  ]);
  const began = performance.now();
  await page.goto(pathToFileURL(resolve(folder, `${name}.html`)).href, { waitUntil: "load" });
  return { page, faults, took: performance.now() - began };
}

const picture = async (page, name, whole) => {
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: whole });
};

async function accessible(page, what) {
  // Evaluated from outside, which the policy of the page does not bind.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const said = violations.map((v) => `${v.id} (${v.nodes.length}): ${v.nodes[0].html.slice(0, 200)} ${v.nodes[0].failureSummary ?? ""}`);
  check(`${what} is accessible`, violations.length === 0, said.join("\n  "));
}

async function looks(name) {
  for (const scheme of ["light", "dark"]) {
    for (const [width, size] of Object.entries(WIDTHS)) {
      const what = `${name} ${scheme} ${width}`;
      const { page, faults, took } = await open(name, scheme, size);
      check(`${what} opens soon`, took < 3000, `${Math.round(took)} ms`);
      await picture(page, `${name}-${scheme}-${width}`, false);
      await picture(page, `${name}-${scheme}-${width}-whole`, true);
      await accessible(page, what);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(`${what} does not scroll sideways`, wide <= 0, `${wide} pixels`);
      if (scheme === "light" && width === "desktop" && await page.$("#answers")) {
        const below = await page.evaluate(() => document.querySelector("#answers").getBoundingClientRect().bottom - innerHeight);
        check(`${what} has the answers on the first screen`, below <= 0 || name === "hostile", `${below} pixels below`);
      }
      check(`${what} is quiet`, faults.length === 0, faults.join("; "));
      check(`${what} keeps its title`, (await page.title()) !== "owned");
      await page.close();
    }
  }
}

async function keyboard(name) {
  const { page, faults } = await open(name, "light", WIDTHS.desktop);
  const focus = () => page.evaluate(() => document.activeElement.className || document.activeElement.tagName);
  await page.keyboard.press("Tab");
  check(`${name}: the first stop skips to the report`, (await focus()) === "skip");
  await page.keyboard.press("Enter");
  check(`${name}: skipping moves the focus`, (await page.evaluate(() => document.activeElement.id)) === "main");
  let sort = null;
  for (const button of await page.$$(".sortable .sort")) if (!sort && (await button.isVisible())) sort = button;
  if (sort) {
    await sort.focus();
    await page.keyboard.press("Enter");
    check(`${name}: tables sort`, (await page.$("[aria-sort]")) !== null);
  }
  if (await page.$(".list")) {
    const state = () => page.evaluate(() => ({
      selected: document.querySelector(".row[aria-selected=true] .name")?.textContent,
      active: document.querySelector(".list").getAttribute("aria-activedescendant"),
      title: document.querySelector(".details h3")?.textContent,
      status: document.querySelector(".status").textContent,
      rows: document.querySelectorAll(".row").length,
    }));
    await page.focus(".list");
    await page.keyboard.press("Home");
    const first = await state();
    check(`${name}: home selects the first op`, first.active === "op-0" && first.selected === first.title, JSON.stringify(first));
    await page.keyboard.press("ArrowDown");
    const second = await state();
    check(`${name}: arrows go on`, second.active === "op-1" && second.selected === second.title, JSON.stringify(second));
    await page.keyboard.press("End");
    const last = await state();
    check(`${name}: end selects the last op`, last.active !== second.active && last.selected === last.title, JSON.stringify(last));
    check(`${name}: few rows are elements`, last.rows <= 60, `${last.rows}`);
    await page.keyboard.press("/");
    const word = first.title.slice(0, 24);
    await page.keyboard.type(word);
    const found = await state();
    check(`${name}: search narrows the list`, found.rows > 0 && (NOT_REPORTS.has(name) || found.status !== last.status), JSON.stringify(found));
    await page.keyboard.press("ArrowDown");
    const chosen = await state();
    check(`${name}: search leads into the list`, chosen.selected !== undefined && chosen.active !== null, JSON.stringify(chosen));
    await page.keyboard.press("Enter");
    check(`${name}: enter goes to the details`, (await focus()) === "details");
    await picture(page, `${name}-searched`, false);
    await page.keyboard.press("Escape");
    check(`${name}: escape goes back`, (await focus()) === "list");
    await page.focus(".controls input");
    await page.keyboard.type(" nothing is called this");
    check(`${name}: a search may find nothing`, (await state()).rows === 0 && (await page.$(".none")) !== null);
    await accessible(page, `${name} with nothing found`);
    await page.evaluate(() => document.querySelector(".controls input").select());
    await page.keyboard.press("Backspace");
    const link = await page.$(".details .links button.op");
    if (link) {
      const wanted = await link.evaluate((b) => b.textContent);
      await link.focus();
      await page.keyboard.press("Enter");
      check(`${name}: links select ops`, (await state()).title === wanted);
    }
    const chip = await page.$(".chips .state");
    if (chip) {
      await chip.focus();
      await page.keyboard.press("Space");
      check(`${name}: states filter`, / of /.test((await state()).status) || (await page.$$(".chips .state")).length === 1);
      await accessible(page, `${name} filtered`);
    }
  }
  const copy = await page.$("[data-copy]:not([hidden])");
  if (copy) {
    await copy.focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => [...document.querySelectorAll("[data-copy]")].some((b) => b.textContent === "Copied"), { timeout: 2000 })
      .then(() => check(`${name}: copies`, true), () => check(`${name}: copies`, false));
  }
  check(`${name}: stays quiet`, faults.length === 0, faults.join("; "));
  await page.close();
}

async function print(name) {
  const { page, faults } = await open(name, "dark", WIDTHS.desktop);
  const pdf = await page.pdf({ format: "A4", preferCSSPageSize: true });
  check(`${name} prints`, pdf.length > 1000 && faults.length === 0, faults.join("; "));
  if (pictures) writeFileSync(join(pictures, `${name}.pdf`), pdf);
  await page.close();
}

async function plain(name, report) {
  const { page } = await open(name, "light", WIDTHS.desktop, false);
  // Without scripts nothing can be asked of the page: its text is in the picture of its tree.
  const tree = JSON.stringify(await page.accessibility.snapshot({ interestingOnly: false }));
  const has = (text) => tree.includes(JSON.stringify(text).slice(1, -1));
  check(`${name} says without scripts what it shows`, tree.includes("conversion parity"));
  if (name !== "hostile") {
    for (const output of report.outputs ?? []) if (output.name) check(`${name} has ${output.name} without scripts`, has(output.name));
    for (const file of report.files ?? []) if (file.sha256) check(`${name} has the hash of ${file.path} without scripts`, has(file.sha256));
    for (const culprit of report.bisection?.culprits ?? []) {
      const op = report.ops[culprit.op]?.name;
      if (op) check(`${name} has ${op} without scripts`, has(op));
    }
  }
  await picture(page, `${name}-plain`, true);
  await page.close();
}

// What a reader of Markdown takes for markup is what the rendering put there.
function markdown(name, report) {
  const tokens = new MarkdownIt({ html: true, linkify: true }).parse(readFileSync(join(folder, `${name}.md`), "utf8"), {});
  const all = tokens.flatMap((t) => [t, ...(t.children ?? [])]);
  const tags = all.filter((t) => /^html_/.test(t.type)).flatMap((t) => t.content.match(/<[^>]*>?/g) ?? []);
  const strange = tags.filter((t) => !/^<(\/?(details|summary|sub)>|!-- -->)$/.test(t));
  check(`${name}.md has no other markup`, strange.length === 0, strange.join(" "));
  const marks = all.filter((t) => /^(link_open|image|em_open|s_open)$/.test(t.type));
  check(`${name}.md has no links and no emphasis`, marks.length === 0, marks.map((t) => t.type).join(" "));
  const rows = all.filter((t) => t.type === "tr_open").length;
  check(`${name}.md has its tables`, (report.outputs ?? []).length === 0 || rows > (report.outputs ?? []).length, `${rows} rows`);
}

for (const name of names) {
  const report = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
  if (!NOT_REPORTS.has(name)) {
    check(`${name} fits the schema`, isValid(report), JSON.stringify(isValid.errors?.slice(0, 3)));
  }
  const size = statSync(join(folder, `${name}.html`)).size;
  check(`${name} is below 2 MB`, size < 2_000_000, `${size} bytes`);
  await looks(name);
  await keyboard(name);
  await print(name);
  await plain(name, report);
  if (existsSync(join(folder, `${name}.md`))) markdown(name, report);
  const xml = join(folder, `${name}.xml`);
  if (existsSync(xml)) {
    try {
      execFileSync("xmllint", ["--noout", "--schema", join(here, "junit.xsd"), xml], { stdio: "pipe" });
      check(`${name}.xml is JUnit`, true);
    } catch (error) {
      if (error.code === "ENOENT") console.log("xmllint is not installed: JUnit files are not held to their schema");
      else check(`${name}.xml is JUnit`, false, String(error.stderr));
    }
  }
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
