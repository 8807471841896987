import { once } from 'node:events';
import { join } from 'node:path';
import { MongoMemoryReplSet } from 'mongodb-memory-server-core';
import { freePort } from './free-port.js';
import { guard, makeGuardedFolder } from './guard.js';
import type { OwnServer } from './own-server.js';
import { runCommand } from './run-command.js';
import { serverFolder } from './server-folder.js';
import { getMongod } from './server-programs.js';

export const replicaSetName = 'keyreeve';

/** The election settings with which a replica set carries Keyreeve's leases. */
export const replicaSetSettings = {
  electionTimeoutMillis: 4000,
  heartbeatIntervalMillis: 1000,
  heartbeatTimeoutSecs: 4,
  catchUpTimeoutMillis: 2000,
};

/**
 * A member alone confirms a linearizable read only when its journal is next written, every 100 ms by default. With
 * others, which wait for its journal, it writes at once.
 */
export const mongodArguments = ['--journalCommitInterval', '2'];

const RESTARTS_MAX = 5;

export interface OwnMongod extends OwnServer {
  readonly uri: string;
}

/**
 * Starts a replica set of one journaled member; resolves once it is primary.
 * @throws NoServer where there is no mongod to start
 */
export async function startMongod(): Promise<OwnMongod> {
  const binary = await getMongod();
  const version = await versionOf(binary);
  const port = await freePort();
  const folder = await makeGuardedFolder(join(serverFolder(), 'keyreeve-mongod-'));
  const set = new MongoMemoryReplSet({
    binary: { systemBinary: binary, version },
    instanceOpts: [{ dbPath: folder.path, port, launchTimeout: 60_000, args: [...mongodArguments, '--nounixsocket'] }],
    replSet: {
      name: replicaSetName,
      storageEngine: 'wiredTiger',
      configSettings: replicaSetSettings,
      spawn: { detached: true }, // Ctrl-C in a terminal is for the test run; it stops its servers itself
    },
  });
  const child = () => set.servers[0]?.instanceInfo?.instance.mongodProcess;

  async function start() {
    await set.start();
    const pid = child()?.pid;
    if (pid === undefined) throw new Error('mongod started and is gone');
    const guarded = guard({ pid });
    child()?.once('close', () => guarded.release());
  }
  /** The library sets the set's old configuration anew when it comes up, perhaps at a moment when the member does so. */
  async function restart() {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await start();
        return;
      } catch (error) {
        if (attempt === RESTARTS_MAX || !String(error).includes('currently updating its configuration')) throw error;
        await stop();
      }
    }
  }
  async function stop() {
    await set.stop({ doCleanup: false });
  }
  async function kill() {
    const running = child();
    if (running?.kill('SIGKILL')) await once(running, 'close');
    await stop(); // so that the library, too, knows that it is gone
  }
  async function dispose() {
    await kill();
    await folder[Symbol.asyncDispose]();
  }

  try {
    await start();
  } catch (error) {
    await dispose();
    throw new Error(`${binary} did not start: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  return {
    uri: `mongodb://127.0.0.1:${port}/?replicaSet=${replicaSetName}`,
    get pid() {
      return child()?.pid;
    },
    stop,
    kill,
    restart,
    [Symbol.asyncDispose]: dispose,
  };
}

async function versionOf(binary: string): Promise<string> {
  const { stdout } = await runCommand(binary, ['--version']);
  const version = /^db version v(\d+\.\d+\.\d+)/m.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`${binary} --version names no version of MongoDB`);
  return version;
}
