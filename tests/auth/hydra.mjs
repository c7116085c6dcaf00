// Ory Hydra with its memory as the database: a restart gives it new keys, and forgets its clients.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { Program, answering, ask, directory, freePort } from './running.mjs';

const secret = 'a-secret-of-the-tests';
const keySet = 'hydra.jwt.access-token';

export class Hydra {
  static name = 'Hydra';

  forgets = true;

  /** `binary` is the program. */
  static async make(binary) {
    const provider = new Hydra();
    provider.binary = binary;
    const [port, adminPort] = [await freePort(), await freePort()];
    provider.issuer = `http://127.0.0.1:${port}`;
    provider.adminBase = `http://127.0.0.1:${adminPort}/admin`;
    // What the operator's own service adds to the access tokens.
    const claims = { portal: { client_ids: ['42', '43'] }, importer: { groups: ['uploaders'] } };
    const hook = await answering(({ request }) => ({ session: { access_token: claims[request.client_id] } }));
    provider.config = path.join(directory('hydra'), 'hydra.json');
    writeFileSync(provider.config, JSON.stringify({
      dsn: 'memory',
      log: { level: 'warn' },
      sqa: { opt_out: true },
      secrets: { system: ['a secret of the tests, of 32 bytes'] },
      serve: { public: { host: '127.0.0.1', port }, admin: { host: '127.0.0.1', port: adminPort } },
      urls: { self: { issuer: provider.issuer } },
      strategies: { access_token: 'jwt' },
      oauth2: { token_hook: hook },
    }));
    return provider;
  }

  async start() {
    this.program = new Program('hydra', [this.binary, 'serve', 'all', '--dev', '--config', this.config]);
    await this.program.ready(60, async () => (await ask(`${this.issuer}/health/ready`)).status === 200);
    for (const id of ['portal', 'importer']) {
      await this.admin('POST', '/clients', {
        client_id: id,
        client_secret: secret,
        grant_types: ['client_credentials'],
        scope: 'attachments:write attachments:read profile',
        audience: ['attachd', 'elsewhere'],
        token_endpoint_auth_method: 'client_secret_post',
      });
    }
  }

  async stop() {
    await this.program.stop();
  }

  async admin(method, where, body) {
    const { status, text } = await ask(`${this.adminBase}${where}`, {
      method, headers: { 'content-type': 'application/json' }, body: body && JSON.stringify(body),
    });
    if (status >= 300) throw new Error(`${method} ${where}: ${status} ${text}`);
    return JSON.parse(text);
  }

  async token(client_id, more) {
    const { status, text } = await ask(`${this.issuer}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'client_credentials', client_id, client_secret: secret, ...more }),
    });
    if (status !== 200) throw new Error(`no token: ${status} ${text}`);
    return JSON.parse(text).access_token;
  }

  good() { return this.token('portal', { scope: 'profile attachments:write', audience: 'attachd' }); }

  withoutScope() { return this.token('portal', { scope: 'profile', audience: 'attachd' }); }

  ofGroup() { return this.token('importer', { audience: 'attachd' }); }

  elsewhere() { return this.token('portal', { scope: 'attachments:write', audience: 'elsewhere' }); }

  /** A new key signs from now on. The old ones stay published. */
  async rotate() {
    this.rotations = (this.rotations ?? 0) + 1;
    await this.admin('POST', `/keys/${keySet}`, { kid: `key-${this.rotations}`, alg: 'RS256', use: 'sig' });
  }

  /** Another key takes the place, and the name, of the one that signs. */
  async replace() {
    const { keys: [{ kid }] } = await this.admin('GET', `/keys/${keySet}`);
    // Hydra makes the key as well: `KeyObject.export` of Node can wait for itself for ever.
    const { keys: [spare] } = await this.admin('POST', '/keys/spare', { kid, alg: 'RS256', use: 'sig' });
    await this.admin('PUT', `/keys/${keySet}/${kid}`, { ...spare, kid, alg: 'RS256', use: 'sig' });
  }
}
