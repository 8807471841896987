/** A replica set of three members, each to be killed, paused and cut off from the service. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { MongoClient, MongoServerError } from 'mongodb';

import { freePort } from './free-port.js';
import { guard, makeGuardedFolder } from './guard.js';
import { replicaSetName, replicaSetSettings } from './mongod.js';
import { pause, resume } from './pause.js';
import { serverFolder } from './server-folder.js';
import { getMongod } from './server-programs.js';
import { startProxy, type TcpProxy } from './tcp-proxy.js';

const READY_MS_MAX = 60_000;

/** Three of them on one machine: each would take half of its memory for a cache. */
export const memberArguments = ['--wiredTigerCacheSizeGB', '0.25'];

export interface Member {
  /** As the set's configuration names it: the proxy's address. */
  readonly address: string;
  readonly running: boolean;
  /** Between this member and the service. The members' own traffic passes through it unhurt. */
  readonly proxy: TcpProxy;
  kill(): Promise<void>;
  pause(): Promise<void>;
  resume(): void;
  /** Starts it after `kill`; resolves once it answers. */
  restart(): Promise<void>;
}

export interface ThreeMembers extends AsyncDisposable {
  /** Names no database. */
  readonly uri: string;
  readonly members: readonly Member[];
  /** The member that most of those that answer call primary. Waits until there is one. */
  primary(): Promise<Member>;
  /** A secondary that runs. */
  secondary(): Promise<Member>;
  /** Resolves once all three members run and follow one primary. */
  whole(): Promise<void>;
}

/**
 * Starts three members with the election settings that carry Keyreeve's leases; resolves once they have a primary.
 * @throws NoServer where there is no mongod to start
 */
export async function startThreeMembers(): Promise<ThreeMembers> {
  const binary = await getMongod();
  const members = await Promise.all([0, 1, 2].map(() => startMember(binary)));
  const dispose = async () => {
    await Promise.all(members.map((member) => member[Symbol.asyncDispose]()));
  };

  /** What the members that answer say of themselves. */
  async function look(): Promise<{ member: Member; hello: Hello }[]> {
    const answers = members.map(async (member) => ({ member, hello: await member.hello() }));
    return (await Promise.all(answers)).flatMap(({ member, hello }) => (hello ? [{ member, hello }] : []));
  }
  async function findPrimary(): Promise<Member | undefined> {
    const answers = await look();
    // One that was paused still takes itself for the primary when it goes on; the others know better.
    const votes = answers.map(({ hello }) => hello.primary);
    return members.find(({ address }) => votes.filter((vote) => vote === address).length >= 2);
  }

  try {
    await members[0]?.initiate(members.map(({ address }) => address));
    const set: ThreeMembers = {
      uri: `mongodb://${members.map(({ address }) => address).join()}/?replicaSet=${replicaSetName}`,
      members,
      primary: () => until(findPrimary),
      async secondary() {
        const primary = await set.primary();
        return until(async () => {
          const answers = await look();
          return answers.find(({ member, hello }) => member !== primary && hello.secondary)?.member;
        });
      },
      async whole() {
        await until(async () => {
          const answers = await look();
          const standing = answers.filter(({ hello }) => hello.isWritablePrimary || hello.secondary);
          const primaries = answers.filter(({ hello }) => hello.isWritablePrimary);
          return standing.length === 3 && primaries.length === 1 ? true : undefined;
        });
      },
      [Symbol.asyncDispose]: dispose,
    };
    await set.whole();
    return set;
  } catch (error) {
    await dispose();
    throw error;
  }
}

interface Hello {
  readonly isWritablePrimary: boolean;
  readonly secondary: boolean;
  readonly primary?: string;
}

interface StartedMember extends Member, AsyncDisposable {
  hello(): Promise<Hello | undefined>;
  initiate(addresses: readonly string[]): Promise<void>;
}

async function startMember(binary: string): Promise<StartedMember> {
  const folder = await makeGuardedFolder(join(serverFolder(), 'keyreeve-member-'));
  const port = await freePort();
  // Members name the driver that their own client is not.
  const proxy = await startProxy(port, { suffers: (firstBytes) => firstBytes.includes('nodejs') });
  let child: ChildProcess | undefined;

  async function start(): Promise<void> {
    const place = ['--dbpath', folder.path, '--port', `${port}`, '--bind_ip', '127.0.0.1', '--nounixsocket'];
    const settings = ['--replSet', replicaSetName, ...memberArguments, '--oplogSize', '64'];
    const started = spawn(binary, [...place, ...settings], { stdio: 'ignore', detached: true });
    child = started;
    if (started.pid !== undefined) {
      const guarded = guard({ pid: started.pid });
      started.once('exit', () => guarded.release());
    }
    await until(hello);
  }
  async function kill(): Promise<void> {
    if (!child || hasEnded(child)) return;
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  }
  /** Through a client of its own each time: one that could not connect once never does. */
  async function command(command: Record<string, unknown>): Promise<unknown> {
    await using client = new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`, {
      serverSelectionTimeoutMS: 1500,
      connectTimeoutMS: 1000,
      socketTimeoutMS: 10_000,
    });
    return await client.db('admin').command(command);
  }
  /** Undefined where the member was not reached in time. */
  async function tryToInitiate(config: Record<string, unknown>): Promise<true | undefined> {
    try {
      await command({ replSetInitiate: config });
      return true;
    } catch (error) {
      if (!(error instanceof MongoServerError)) return undefined;
      // By a try whose answer was lost.
      if (error.codeName === 'AlreadyInitialized') return true;
      throw error;
    }
  }
  async function hello(): Promise<Hello | undefined> {
    // Down, paused or not up yet.
    return command({ hello: 1 }).catch(() => undefined) as Promise<Hello | undefined>;
  }

  await start();
  return {
    address: `127.0.0.1:${proxy.port}`,
    get running() {
      return child !== undefined && !hasEnded(child);
    },
    proxy,
    kill,
    pause: () => pause(child?.pid),
    resume: () => resume(child?.pid),
    restart: start,
    hello,
    async initiate(addresses) {
      const members = addresses.map((host, _id) => ({ _id, host }));
      const config = { _id: replicaSetName, members, settings: replicaSetSettings };
      await until(() => tryToInitiate(config));
    },
    async [Symbol.asyncDispose]() {
      await kill();
      await proxy[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** @throws Error where it does not come about for a minute */
async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const endMs = performance.now() + READY_MS_MAX;
  while (performance.now() < endMs) {
    const found = await look();
    if (found !== undefined) return found;
    await delay(50);
  }
  throw new Error('the replica set does not come to the state that is waited for');
}
