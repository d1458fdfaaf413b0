// Calls a function of a page in a Chromium without a window, and prints what it returned as JSON.
//
// usage: node drive.mjs <folder of the packages> <Chromium> <page> <function> <argument>...

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

// Less than the test's own patience, so that what took too long is told.
const PATIENCE_MS = 80_000;

const [packages, program, url, name, ...given] = process.argv.slice(2);
const { chromium } = createRequire(join(packages, 'package.json'))('playwright-core');

const browser = await chromium.launch({
  executablePath: program,
  env: { ...process.env, LD_LIBRARY_PATH: join(dirname(program), 'lib') },
  // A sandbox needs rights that not every machine gives; the only pages here are the test's own.
  args: ['--no-sandbox', '--disable-gpu'],
  timeout: PATIENCE_MS,
});
const said = [];
try {
  const page = await browser.newPage();
  page.on('console', (message) => said.push(message.text()));
  await page.goto(url, { timeout: PATIENCE_MS });
  const late = setTimeout(() => page.close({ reason: 'it does not end' }), PATIENCE_MS);
  const answer = await page.evaluate(([name, given]) => globalThis[name](...given), [name, given]);
  clearTimeout(late);
  console.log(JSON.stringify(answer));
} catch (error) {
  console.error(error.message, ...said);
  process.exitCode = 1;
}
await browser.close();
