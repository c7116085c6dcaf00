// Signs claims with jose: sign.mjs ALG KEY_FILE KID CLAIMS_JSON
// Or makes a key set of public keys: sign.mjs set KID PUBLIC_KEY_FILE …
import { createPrivateKey, createPublicKey, createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { exportJWK, SignJWT } from 'jose';

const [what, ...rest] = process.argv.slice(2);
if (what === 'set') {
  const keys = [];
  for (let at = 0; at < rest.length; at += 2) {
    keys.push({ ...await exportJWK(createPublicKey(readFileSync(rest[at + 1]))), kid: rest[at], use: 'sig' });
  }
  console.log(JSON.stringify({ keys }));
} else {
  const [file, kid, claims] = rest;
  const bytes = readFileSync(file);
  const key = what.startsWith('HS') ? createSecretKey(bytes) : createPrivateKey(bytes);
  const token = new SignJWT(JSON.parse(claims)).setProtectedHeader({ alg: what, ...(kid && { kid }) });
  console.log(await token.sign(key));
}
