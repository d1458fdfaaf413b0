// Drives a Chromium without a window through the page.
//
// usage: node drive.mjs <folder of the packages> <Chromium> <page> <base URL> <operator key> <protocol> <customer>...
//
// Prints a line of JSON: for every protocol the methods of HTTP that its calls used, or the error; and what a page of
// an origin that is not allowed was told.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const [packages, program, page, baseUrl, operatorKey, ...jobs] = process.argv.slice(2);
const { chromium } = createRequire(join(packages, 'package.json'))('playwright-core');

const PATIENCE_MS = 40_000;

const browser = await chromium.launch({
  executablePath: program,
  env: { ...process.env, LD_LIBRARY_PATH: join(dirname(program), 'lib') },
  // A sandbox needs rights that not every machine gives; the only pages here are the test's own.
  args: ['--no-sandbox', '--disable-gpu'],
});

// A context has connections of its own: a browser opens six to a server, and streams and polls hold theirs.
async function inPage(url, work) {
  const context = await browser.newContext();
  try {
    const opened = await context.newPage();
    const said = [];
    opened.on('console', (message) => said.push(message.text()));
    await opened.goto(url);
    const late = setTimeout(() => opened.close({ reason: 'it does not end' }), PATIENCE_MS);
    const told = (error) => ({ error: `${error.message}\n${said.join('\n')}` });
    return await work(opened).catch(told).finally(() => clearTimeout(late));
  } finally {
    await context.close();
  }
}

async function job(protocol, customer) {
  const run = (opened) =>
    opened.evaluate((given) => globalThis.runMainJob(...given), [protocol, baseUrl, customer, operatorKey]);
  return [protocol, await inPage(page, run)];
}

const pairs = [];
for (let at = 0; at < jobs.length; at += 2) pairs.push(job(jobs[at], jobs[at + 1]));
const done = Object.fromEntries(await Promise.all(pairs));

const call = (opened) => opened.evaluate((url) => globalThis.tryCall(url), baseUrl);
const allowed = await inPage(page, call);
// The same page by another name of this machine is of another origin.
const foreign = await inPage(page.replace('127.0.0.1', 'localhost'), call);
await browser.close();
console.log(JSON.stringify({ done, allowed, foreign }));
