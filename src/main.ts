/** The service from start to stop: settings, open, serve, drain. */
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';

import { openCheckedSink } from './audit/checked-sink.js';
import { AUDIT_FILE, openFileSink } from './audit/file-sink.js';
import { startRelay } from './audit/relay.js';
import type { ReadableSink } from './audit/sink.js';
import { type Access, lifetimeOf } from './config/access.js';
import { type Config, loadConfig } from './config/load.js';
import { formatProblem } from './config/problems.js';
import type { Environment, Settings } from './config/settings.js';
import { watchAccess } from './config/watch-access.js';
import type { Parts } from './grpc/parts.js';
import { RunningCalls } from './grpc/running-calls.js';
import { serve } from './grpc/server.js';
import { forwardAuthRoutes } from './http/forward-auth.js';
import { healthRoutes } from './http/health.js';
import { metricsRoutes } from './http/metrics.js';
import { type HttpServer, serveHttp } from './http/server.js';
import { systemRandom } from './keys/base62.js';
import { sourceOf } from './keys/chain.js';
import { type Clock, Deadline, systemClock } from './keys/clock.js';
import { contradictions, keyspaceFactsOf } from './keys/keyspace-facts.js';
import type { Keyspace } from './keys/keyspace.js';
import { fingerprintOf, pepperContradictions, type Peppers, versionInUse } from './keys/pepper.js';
import { createLog, type Log } from './log.js';
import { CallMeters } from './metrics/calls.js';
import type { Watched } from './metrics/registry.js';
import { StoreMeters } from './metrics/store.js';
import { StoreFault } from './store/faults.js';
import { metered } from './store/metered.js';
import type { Store } from './store/port.js';
import { openVerifier } from './verify/verifier.js';
import { readVersion } from './version.js';

/** Why the service does not start, a line for each reason. */
export class CannotStart extends Error {
  override readonly name = 'CannotStart';

  constructor(
    readonly problems: readonly string[],
    options?: ErrorOptions,
  ) {
    super(problems.join('\n'), options);
  }
}

/** Why the service ends though it has served. */
export class CannotGoOn extends Error {
  override readonly name = 'CannotGoOn';
}

const START_MS_MAX = 10_000;
const COUNT_MS_MAX = 5000;

/** What the service is put together from, beside its configuration. */
export interface Assembly {
  readonly clock: Clock;
  readonly openStore: (settings: Settings, clock: Clock, log: Log) => Promise<Store>;
  readonly openSink: (settings: Settings, log: Log) => Promise<ReadableSink>;
}

export const assembly: Assembly = { clock: systemClock, openStore, openSink };

/**
 * Serves until SIGTERM or SIGINT, then finishes what runs, publishes what it can and closes.
 * @throws CannotStart, CannotGoOn
 */
export async function run(env: Environment): Promise<void> {
  const config = await loadConfig(env);
  if (Array.isArray(config)) throw new CannotStart(config.map(formatProblem));
  await start(config, assembly);
}

/** As `run`, of parts that are given. */
export async function start(
  { settings, keyspaces, exampleKeyspaces, accessFiles, accessDigest, ...access }: Config,
  { clock, openStore, openSink }: Assembly,
): Promise<void> {
  const { peppers } = settings;
  const log = createLog(settings.logLevel);
  const meters = { calls: new CallMeters(), store: new StoreMeters() };
  for (const warning of settings.warnings) log.warn({ setting: formatProblem(warning) }, 'setting ignored');
  if (exampleKeyspaces !== undefined) {
    log.warn(
      { keyspaces: exampleKeyspaces },
      'no config/keyspaces.yaml here: serving the example keyspaces; put your own there, or name it in KEYREEVE_KEYSPACES',
    );
  }

  // Closed in reverse: the server drains (4 s at most), the relay publishes what is left (3.5 s) and beside it the verifier
  // writes what it gathered (2 s), the store closes (2 s).
  await using store = metered(await opened(() => openStore(settings, clock, log)), meters.store, clock);
  await opened(() => checkKeyspaces(store, keyspaces, clock));
  await opened(() => checkPeppers(store, peppers, clock, log));
  const readable = await opened(() => openSink(settings, log));
  const source = sourceOf(settings.installation);
  const { sink, broken } = await opened(() => openCheckedSink({ sink: readable, store, source, clock, log }));
  const backlogMax = settings.auditBacklogMax;
  await using beside = sideBySide({
    relay: await startRelay({ outbox: store.outbox, sink, backlogMax, clock, log }),
    verify: openVerifier({ store, peppers, clock, log }),
  });
  const { relay, verify } = beside;
  const backlogExceeded = () => relay.backlogExceeded();
  const { observe } = meters.calls;
  const parts = { store, verify, keyspaces, clock, random: systemRandom, peppers, backlogExceeded, observe };
  const server = await opened(() => serve({ listen: settings.listen, access }, parts, log));
  let inForce: Access = access;
  const watched: Watched = {
    ...meters,
    verifier: verify,
    relay,
    backlogMax,
    isReady: () => server.isReady(),
    certificate: () => inForce.tls && lifetimeOf(inForce.tls),
    keyspaces: keyspaces.keys(),
    version: readVersion(),
    clock,
  };
  const http = await openedAfter(server, () => openHttp(settings, () => inForce, parts, watched, log));
  const admit = (next: Access) => {
    inForce = next;
    server.admit(next);
    http?.admit(next);
  };
  const watching = watchAccess({
    files: accessFiles,
    keyspaces,
    access,
    accessDigest,
    admit,
    log,
    now: () => clock.now(),
  });
  await using serving = sideBySide({ server, watching, ...(http && { http }) });
  if (settings.store.kind === 'mongodb' && settings.auditSink.kind === 'file') {
    log.warn('MongoDB with an audit file: each replica writes a file of its own, so run one, or publish to Kafka');
  }
  if (!access.callers) log.warn('no callers file: whoever connects is the caller "local" and may do everything');
  // Until here a signal ends the process at once: nobody is served yet.
  const signal = stopSignal(broken);
  log.info(
    {
      address: serving.server.address,
      ...(http && { http_address: http.address }),
      store: settings.store.kind,
      audit: settings.auditSink.kind,
    },
    'serving',
  );
  log.info({ signal: await signal }, 'stopping');
}

// What takes long to load is loaded where it is used: a service on SQLite needs no driver of MongoDB.

async function openStore({ store, installation }: Settings, clock: Clock, log: Log): Promise<Store> {
  const options = {
    source: sourceOf(installation),
    clock,
    report: (done: string) => log.info({ done }, 'store prepared'),
  };
  switch (store.kind) {
    case 'sqlite': {
      const { openSqliteStore } = await import('./store/sqlite/open.js');
      return openSqliteStore({ dataDir: store.dataDir, ...options });
    }
    case 'mongodb': {
      const { openMongoStore } = await import('./store/mongodb/open.js');
      return openMongoStore({ uri: store.uri, leaseMs: store.leaseMs, log, ...options });
    }
  }
}

async function openSink({ auditSink }: Settings, log: Log): Promise<ReadableSink> {
  switch (auditSink.kind) {
    case 'file':
      return openFileSink(join(auditSink.dataDir, AUDIT_FILE), log);
    case 'kafka': {
      const { openKafkaSink } = await import('./audit/kafka-sink.js');
      return openKafkaSink(auditSink, log);
    }
  }
}

/** Undefined where none is asked for. */
async function openHttp(
  { httpListen: listen }: Settings,
  access: () => Access,
  parts: Parts,
  watched: Watched,
  log: Log,
): Promise<HttpServer | undefined> {
  if (!listen) return undefined;
  const { openRegistry } = await import('./metrics/registry.js');
  const running = new RunningCalls();
  const routes = {
    ...healthRoutes(watched.isReady),
    ...metricsRoutes(openRegistry(watched)),
    ...forwardAuthRoutes(parts, { access, running, log }),
  };
  return serveHttp({ listen, access: access(), running }, routes, log);
}

async function checkKeyspaces(store: Store, keyspaces: ReadonlyMap<string, Keyspace>, clock: Clock): Promise<void> {
  const deadline = Deadline.after(START_MS_MAX, clock);
  const problems = contradictions(await store.keyspaceFacts(deadline), keyspaces);
  if (problems.length > 0) throw new CannotStart(problems);
  await store.rememberKeyspaces([...keyspaces.values()].map(keyspaceFactsOf), deadline);
}

async function checkPeppers(store: Store, peppers: Peppers, clock: Clock, log: Log): Promise<void> {
  const deadline = Deadline.after(START_MS_MAX, clock);
  const known = await store.pepperFingerprints(deadline);
  // Where there never was a pepper all digests are bare, however many there are to count.
  if (peppers.length === 0 && known.size === 0) return;
  const stored = new Set<number>();
  for (const version of [0, ...known.keys()]) if (await store.hasDigests(version, deadline)) stored.add(version);
  const problems = pepperContradictions(peppers, known, stored);
  if (problems.length > 0) throw new CannotStart(problems);
  const inUse = versionInUse(peppers);
  if (store.isShared && inUse > 0 && !known.has(inUse) && stored.size > 0) {
    log.warn(
      { version: inUse },
      'a pepper is in use that no replica has had on standby: those without it deny its keys',
    );
  }
  const fingerprints = peppers.map((pepper) => [pepper.version, fingerprintOf(pepper)] as const);
  await store.rememberPeppers(new Map(fingerprints), deadline);
  await logDigests(store, peppers, clock, log);
}

/** Nothing depends on how many there are, so a store that cannot count them in time keeps nobody from serving. */
async function logDigests(store: Store, peppers: Peppers, clock: Clock, log: Log): Promise<void> {
  try {
    const counts = await store.countDigests(Deadline.after(COUNT_MS_MAX, clock));
    for (const version of [0, ...peppers.map((pepper) => pepper.version)]) {
      const use = { version, in_use: version === versionInUse(peppers), keys: counts.get(version) ?? 0 };
      log.info(use, 'unrevoked keys by version of the pepper, 0 without one');
    }
  } catch (error) {
    if (!(error instanceof StoreFault)) throw error;
    log.warn('the keys by version of the pepper were not counted in time: keyreeve peppers waits longer for that');
  }
}

/** Disposed together, they end in the time of the slower one. */
function sideBySide<P extends Readonly<Record<string, AsyncDisposable>>>(parts: P): P & AsyncDisposable {
  return {
    ...parts,
    async [Symbol.asyncDispose]() {
      await Promise.all(Object.values(parts).map((part) => part[Symbol.asyncDispose]()));
    },
  };
}

/** @throws CannotStart for whatever stands in the way */
async function opened<T>(open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (error instanceof CannotStart) throw error;
    throw new CannotStart([error instanceof Error ? error.message : String(error)], { cause: error });
  }
}

/** As `opened`; where it does not open, what was opened before it is closed. */
async function openedAfter<T>(before: AsyncDisposable, open: () => Promise<T>): Promise<T> {
  try {
    return await opened(open);
  } catch (error) {
    await before[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * The first of them to come; a second one ends the process at once, as is its way.
 * @throws CannotGoOn where the other promise rejects before
 */
async function stopSignal(broken: Promise<never>): Promise<string> {
  const over = new AbortController();
  const first = ['SIGTERM', 'SIGINT'].map((name) => once(process, name, { signal: over.signal }).then(() => name));
  try {
    return await Promise.race([...first, broken]);
  } catch (error) {
    throw new CannotGoOn(error instanceof Error ? error.message : String(error), { cause: error });
  } finally {
    over.abort();
    // The waits for the others are given up.
    await Promise.allSettled(first);
  }
}
