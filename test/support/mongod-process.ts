import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { MongoClient } from 'mongodb';
import { freePort } from './free-port.js';
import { guard, makeGuardedFolder } from './guard.js';
import { lastLines } from './run-command.js';
import { serverFolder } from './server-folder.js';
import { getMongod } from './server-programs.js';

export interface MongodProcess extends AsyncDisposable {
  readonly address: string;
  /** Runs a command on its `admin` database, whatever state the server is in. */
  readonly command: (command: Record<string, unknown>) => Promise<Record<string, unknown>>;
}

/**
 * Starts a mongod with arguments of the test's own, for what the shared one must not be: alone, or told to fail.
 * Resolves once it answers.
 * @throws NoServer where there is no mongod to start
 */
export async function startMongodProcess(...args: readonly string[]): Promise<MongodProcess> {
  const binary = await getMongod();
  const port = await freePort();
  const folder = await makeGuardedFolder(join(serverFolder(), 'keyreeve-mongod-'));
  const address = `127.0.0.1:${port}`;
  // By no socket in /tmp, which would stay behind where the process is killed.
  const place = ['--dbpath', folder.path, '--port', String(port), '--bind_ip', '127.0.0.1', '--nounixsocket'];
  const child = spawn(binary, [...place, ...args], { stdio: ['ignore', 'pipe', 'ignore'], detached: true });
  const guarded = child.pid === undefined ? undefined : guard({ pid: child.pid });
  let log = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4000)));
  const ended = once(child, 'close').then(() => {
    throw new Error(`mongod ended: ${lastLines(log, 5)}`);
  });
  ended.catch(() => undefined); // it may end long after anyone waits for it

  const client = new MongoClient(`mongodb://${address}/?directConnection=true`, { serverSelectionTimeoutMS: 60_000 });
  const admin = client.db('admin');
  async function dispose() {
    await client.close();
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
    guarded?.release();
    await folder[Symbol.asyncDispose]();
  }

  try {
    await Promise.race([admin.command({ hello: 1 }), ended]);
  } catch (error) {
    await dispose();
    throw error;
  }
  return { address, command: (command) => admin.command(command), [Symbol.asyncDispose]: dispose };
}

export interface FailingMongod extends AsyncDisposable {
  readonly uri: string;
  /** Lets the next `times` of these commands fail in the way of `how`: see MongoDB's fail point `failCommand`. */
  fail(commands: readonly string[], times: number, how: Record<string, unknown>): Promise<void>;
  /** Resolves once a command fails that was told to by then. */
  hasFailed(): Promise<void>;
  /** Lets all succeed again. */
  recover(): Promise<void>;
  /** The commands that it logs while this runs. */
  logged(run: () => Promise<unknown>): Promise<Record<string, unknown>[]>;
}

/** Starts a replica set of one member that can be told to fail; resolves once it is primary. */
export async function startFailingMongod(): Promise<FailingMongod> {
  const set = 'failing';
  const mongod = await startMongodProcess('--replSet', set, '--setParameter', 'enableTestCommands=1');
  const { address, command } = mongod;
  await command({ replSetInitiate: { _id: set, members: [{ _id: 0, host: address }] } });
  const uri = `mongodb://${address}/?replicaSet=${set}`;
  await using client = new MongoClient(uri, { serverSelectionTimeoutMS: 60_000 });
  await client.db('admin').command({ ping: 1 });
  let failures = 0;
  return {
    uri,
    async fail(failCommands, times, how) {
      const data = { failCommands, ...how };
      const { count } = await command({ configureFailPoint: 'failCommand', mode: { times }, data });
      failures = Number(count);
    },
    async hasFailed() {
      await command({ waitForFailPoint: 'failCommand', timesEntered: failures + 1, maxTimeMS: 10_000 });
    },
    async recover() {
      await command({ configureFailPoint: 'failCommand', mode: 'off' });
    },
    async logged(run) {
      const verbosity = (level: number) =>
        command({ setParameter: 1, logComponentVerbosity: { command: { verbosity: level } } });
      await command({ clearLog: 'global' });
      await verbosity(1);
      await run();
      await verbosity(0);
      const { log } = (await command({ getLog: 'global' })) as { log: string[] };
      return log
        .map((line) => (JSON.parse(line) as { attr?: { command?: Record<string, unknown> } }).attr?.command)
        .filter((logged) => logged !== undefined);
    },
    [Symbol.asyncDispose]: () => mongod[Symbol.asyncDispose](),
  };
}
