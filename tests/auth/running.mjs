// Programs of the checks of real providers: attachd and the provider are started and stopped here, each by its own process.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const { ATTACHD: attachd, WORK: work } = process.env;
const running = new Set();

/** Asks again and again until the answer is true, and returns the milliseconds that it took. */
export async function until(what, seconds, holds) {
  const began = Date.now();
  let last;
  while (Date.now() - began < seconds * 1000) {
    try {
      if (await holds()) return Date.now() - began;
      last = '';
    } catch (error) {
      last = `: ${error.message}`;
    }
    await pause(50);
  }
  throw new Error(`${what}: not within ${seconds} s${last}`);
}

/** Asks a provider over a connection of its own: one that is kept does not outlive a restart. Returns status and text. */
export async function ask(url, { method = 'GET', headers = {}, body } = {}) {
  const isForm = body instanceof URLSearchParams;
  const request = http.request(url, {
    method, agent: false, headers: { ...(isForm && { 'content-type': 'application/x-www-form-urlencoded' }), ...headers },
  });
  request.end(isForm ? body.toString() : body);
  const [response] = await once(request, 'response');
  let text = '';
  for await (const data of response.setEncoding('utf8')) text += data;
  return { status: response.statusCode, text };
}

/** A port of 127.0.0.1 for a program that takes its port as an argument: below the ports that the system gives to connections. */
export async function freePort() {
  for (;;) {
    const port = 20000 + Math.floor(Math.random() * 12000);
    const server = net.createServer();
    const isFree = await new Promise((done) => {
      server.once('error', () => done(false));
      server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
    });
    if (isFree) return port;
  }
}

/** A program with its output in a file of the work directory. */
export class Program {
  constructor(name, command, options = {}) {
    this.name = name;
    this.log = path.join(work, `${name}.log`);
    const output = openSync(this.log, 'a');
    this.child = spawn(command[0], command.slice(1), { ...options, stdio: ['ignore', output, output] });
    closeSync(output);
    this.ended = new Promise((done) => {
      this.child.once('error', (error) => done(error.message));
      this.child.once('exit', (code, signal) => done(signal ?? `exit status ${code}`));
    });
    this.ended.then((how) => {
      this.how = how;
      running.delete(this);
    });
    running.add(this);
  }

  /** Waits until the program is ready, and fails at once if it ends before that. */
  async ready(seconds, holds) {
    return until(`${this.name} is ready`, seconds, async () => this.how !== undefined || await holds())
      .catch((error) => { throw new Error(`${error.message}\n${this.tail()}`); })
      .then((time) => {
        if (this.how !== undefined) throw new Error(`${this.name} ended, ${this.how}\n${this.tail()}`);
        return time;
      });
  }

  tail() {
    return readFileSync(this.log, 'utf8').split('\n').slice(-15).join('\n');
  }

  async stop() {
    if (this.how === undefined) this.child.kill();
    await this.ended;
  }
}

export async function stopAll() {
  await Promise.all([...running].map((program) => {
    // A process that is frozen does not see any other signal.
    program.child.kill('SIGCONT');
    return program.stop();
  }));
}

/** Runs a program to its end. */
export async function run(command) {
  const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stdout.on('data', (data) => { said += data; });
  child.stderr.on('data', (data) => { said += data; });
  const [code] = await once(child, 'close');
  return { code, said };
}

/** An attachd whose issuers are these tables. It forgets what it stored. */
export class Attachd {
  static async start(name, issuers) {
    const server = new Attachd();
    server.config = path.join(work, `${name}.toml`);
    writeFileSync(server.config, `
[rest]
listen = "127.0.0.1:0"
[grpc]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[storage]
service = "memory"
[attachments]
on_unknown = "create"
[log]
format = "json"
${issuers}`);
    server.program = new Program(name, [attachd, 'serve', '--config', server.config]);
    await server.program.ready(20, () => {
      for (const line of readFileSync(server.program.log, 'utf8').split('\n')) {
        if (!line.startsWith('{')) continue;
        const { fields } = JSON.parse(line);
        if (fields.message === 'listening') server[fields.port] = `http://${fields.address}`;
      }
      return server.rest && server.grpc && server.admin;
    });
    return server;
  }

  async readiness() {
    const reply = await fetch(`${this.admin}/readyz`);
    return { status: reply.status, text: await reply.text() };
  }

  /** Uploads to a client over REST. Returns the status, and the fixed part of a refusal. */
  async upload(token, client = 42) {
    const form = new FormData();
    form.append('file', new Blob(['content']), 'a.txt');
    const id = 1 + Math.floor(Math.random() * 1e9);
    const reply = await fetch(`${this.rest}/api/v2/clients/${client}/attachments/${id}`, {
      method: 'POST', headers: { authorization: `Bearer ${token}` }, body: form,
    });
    return { status: reply.status, details: (await reply.json()).details };
  }

  /** Uploads to a client over gRPC. Returns the exit status of the client and what it said. */
  async uploadOverGrpc(token, client = 42) {
    const [file, content] = [path.join(work, 'token'), path.join(work, 'content')];
    writeFileSync(file, token);
    writeFileSync(content, 'content');
    const id = 1 + Math.floor(Math.random() * 1e9);
    return run([attachd, 'upload', content, '--client', `${client}`, '--attachment', `${id}`, '--to', this.grpc,
      '--token-file', file]);
  }

  /** Explains a token by the configuration of this server. */
  async inspect(token) {
    const file = path.join(work, 'token');
    writeFileSync(file, token);
    return run(['bash', '-c', '"$1" token inspect --config "$2" <"$3"', 'bash', attachd, this.config, file]);
  }
}

/** Directories of the work directory. */
export function directory(name) {
  const made = path.join(work, name);
  mkdirSync(made, { recursive: true });
  return made;
}

/** Answers every POST with what a function makes of the JSON in it, as JSON, and returns the address. */
export async function answering(answer) {
  const server = http.createServer((request, response) => {
    let body = '';
    request.on('data', (data) => { body += data; });
    request.on('end', () => {
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer(JSON.parse(body))));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.unref();
  return `http://127.0.0.1:${server.address().port}/`;
}
