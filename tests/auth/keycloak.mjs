// Keycloak in development mode, with the realm of keycloak/realm.json.
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { Program, ask, freePort } from './running.mjs';

const secret = 'a secret of the tests';

export class Keycloak {
  static name = 'Keycloak';

  /** `home` is the directory of an unpacked distribution, which is changed. */
  static async make(home) {
    const provider = new Keycloak();
    provider.home = home;
    provider.port = await freePort();
    provider.base = `http://127.0.0.1:${provider.port}`;
    provider.issuer = `${provider.base}/realms/main`;
    mkdirSync(path.join(home, 'data/import'), { recursive: true });
    copyFileSync(new URL('keycloak/realm.json', import.meta.url), path.join(home, 'data/import/realm.json'));
    return provider;
  }

  async start() {
    this.program = new Program('keycloak', [
      path.join(this.home, 'bin/kc.sh'), 'start-dev', '--http-host=127.0.0.1', `--http-port=${this.port}`, '--import-realm',
    ], {
      env: {
        ...process.env,
        KC_BOOTSTRAP_ADMIN_USERNAME: 'admin',
        KC_BOOTSTRAP_ADMIN_PASSWORD: secret,
        // It lives for a minute, so that what a compiler optimises is not worth its time.
        JAVA_OPTS_APPEND: '-XX:TieredStopAtLevel=1',
      },
    });
    await this.program.ready(240, async () => (await ask(this.issuer)).status === 200);
  }

  async stop() {
    await this.program.stop();
  }

  async token(parameters, realm = 'main') {
    const url = `${this.base}/realms/${realm}/protocol/openid-connect/token`;
    const { status, text } = await ask(url, { method: 'POST', body: new URLSearchParams(parameters) });
    if (status !== 200) throw new Error(`no token: ${status} ${text}`);
    return JSON.parse(text).access_token;
  }

  client(id, more) {
    return this.token({ grant_type: 'client_credentials', client_id: id, client_secret: secret, ...more });
  }

  good() { return this.client('portal', { scope: 'attachments:write' }); }

  withoutScope() { return this.client('portal'); }

  ofGroup() { return this.client('importer'); }

  elsewhere() { return this.client('elsewhere', { scope: 'attachments:write' }); }

  async admin(method, where, body) {
    const credentials = { grant_type: 'password', client_id: 'admin-cli', username: 'admin', password: secret };
    const token = await this.token(credentials, 'master');
    const { status, text } = await ask(`${this.base}/admin/realms/main${where}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    if (status >= 300) throw new Error(`${method} ${where}: ${status} ${text}`);
    return text && JSON.parse(text);
  }

  /** A new key signs from now on. The old ones stay published. */
  async rotate() {
    const realm = await this.admin('GET', '');
    this.priority = (this.priority ?? 100) + 100;
    await this.admin('POST', '/components', {
      name: `rsa-${this.priority}`,
      parentId: realm.id,
      providerId: 'rsa-generated',
      providerType: 'org.keycloak.keys.KeyProvider',
      config: { priority: [`${this.priority}`], enabled: ['true'], active: ['true'], algorithm: ['RS256'], keySize: ['2048'] },
    });
  }
}
