// A real OpenID Connect issuer over https, on a free port of the loopback interface.
//
// usage: node issuer.mjs <library> <certificate> <key>. Prints its port, then answers commands: a line of JSON each.
//   {"sign_in": user, "client": id}   an ID token, by the whole authorization code flow
//   {"sign": claims, "header": {..}}  a token of other claims, signed by the issuer's current key
//   {"rotate": true}                  another key from now on
// Beside the issuer there are /direct, /redirecting and /large: each has discovery and keys of its own, and the keys
// of the second lie behind a redirect, those of the third behind a megabyte of blanks.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [library, certificate, key] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(library).href);
const jose = createRequire(library)('jose');

const clients = ['agentrouter', 'other'].map((id) => ({
  client_id: id,
  client_secret: `${id}-secret`,
  redirect_uris: [`https://${id}.example/back`],
}));

let base, provider, signing, published;

async function renew() {
  const { privateKey } = await jose.generateKeyPair('RS256', { extractable: true });
  signing = { ...(await jose.exportJWK(privateKey)), alg: 'RS256', use: 'sig' };
  signing.kid = await jose.calculateJwkThumbprint(signing);
  const { kty, n, e, alg, use, kid } = signing;
  published = { keys: [{ kty: 'oct', k: 'c2VjcmV0', kid: 'symmetric' }, { kty, n, e, alg, use, kid }] };
  provider = new Provider(base, {
    clients,
    jwks: { keys: [signing] },
    cookies: { keys: ['of this test'] },
    pkce: { required: () => false },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    ttl: { IdToken: 3600, Interaction: 60, Session: 60, Grant: 60, AccessToken: 60, AuthorizationCode: 60 },
  });
}

function serve(request, response) {
  const [, name, rest] = request.url.match(/^\/(direct|redirecting|large)(\/.*)$/) ?? [];
  if (!name) return provider.callback()(request, response);
  const answer = (body) => response.setHeader('content-type', 'application/json').end(body);
  if (rest === '/.well-known/openid-configuration') {
    return answer(JSON.stringify({ issuer: `${base}/${name}`, jwks_uri: `${base}/${name}/keys` }));
  }
  if (name === 'redirecting') {
    return response.writeHead(302, { location: `${base}/direct/keys` }).end();
  }
  return answer((name === 'large' ? ' '.repeat(1 << 20) : '') + JSON.stringify(published));
}

// What a browser and the client behind it do, by the pages that the library has for development.
async function signIn(user, client) {
  const jar = new Map();
  const visit = async (url, form) => {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const method = form ? { method: 'POST', body: new URLSearchParams(form) } : {};
    const answer = await fetch(url, { redirect: 'manual', headers: { cookie }, ...method });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      jar.set(name, value);
    }
    return answer;
  };
  const back = `https://${client}.example/back`;
  const query = { client_id: client, response_type: 'code', scope: 'openid', redirect_uri: back };
  let url = `${base}/auth?${new URLSearchParams(query)}`;
  for (let step = 0; step < 10 && !url.startsWith(back); step += 1) {
    const page = url.includes('/interaction/') ? await visit(url) : undefined;
    const prompt = (await page?.text())?.includes('name="login"') ? 'login' : 'consent';
    const answer = await visit(url, page && { prompt, login: user, password: 'any' });
    url = new URL(answer.headers.get('location'), base).href;
  }
  const code = new URL(url).searchParams.get('code');
  const secret = Buffer.from(`${client}:${client}-secret`).toString('base64');
  const answer = await fetch(`${base}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${secret}` },
    body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: back }),
  });
  return (await answer.json()).id_token;
}

async function sign(claims, header) {
  const key = await jose.importJWK(signing, 'RS256');
  return new jose.SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: signing.kid, ...header }).sign(key);
}

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (...of) => serve(...of));
server.listen(0, '127.0.0.1', async () => {
  base = `https://localhost:${server.address().port}`;
  await renew();
  console.log(JSON.stringify({ port: server.address().port }));
});

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.rotate) await renew();
  const token = command.sign_in ? await signIn(command.sign_in, command.client)
    : command.sign ? await sign(command.sign, command.header) : null;
  console.log(JSON.stringify({ token, keys: published.keys }));
}
server.close();
process.exit(0);
