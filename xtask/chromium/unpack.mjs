// Lays out the Chromium of its npm package, which is packed with brotli: the program, and its libraries in lib/.
//
// usage: node unpack.mjs <folder of the packed files> <folder for the unpacked>

import { execFileSync } from 'node:child_process';
import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createBrotliDecompress } from 'node:zlib';

const [packed, unpacked] = process.argv.slice(-2);

async function unpack(name, to) {
  await pipeline(createReadStream(join(packed, name)), createBrotliDecompress(), createWriteStream(to));
}

const program = join(unpacked, 'chromium');
await unpack('chromium.br', program);
await chmod(program, 0o755);

const libraries = join(unpacked, 'libraries.tar');
await unpack('al2023.tar.br', libraries);
await mkdir(join(unpacked, 'lib'), { recursive: true });
execFileSync('tar', ['-xf', libraries, '-C', unpacked]);
await rm(libraries);
