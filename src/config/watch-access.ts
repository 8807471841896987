/** Takes over the callers file and the certificates when they change, without a restart. */
import type { Keyspace } from '../keys/keyspace.js';
import type { Log } from '../log.js';
import { type Access, type AccessFiles, digestOf, lifetimeOf, loadAccess } from './access.js';
import { formatProblem } from './problems.js';

export interface WatchAccessParts {
  readonly files: AccessFiles;
  readonly keyspaces: ReadonlyMap<string, Keyspace>;
  /** As it was loaded at the start. */
  readonly access: Access;
  /** Of the files, from before that: what changes while the service starts is taken over too. */
  readonly accessDigest: string;
  /** Told of what is in force from now on. */
  readonly admit: (access: Access) => void;
  readonly log: Log;
  readonly now: () => Date;
}

/** Looks at the files every few seconds, since mounted secrets change by links, of which no watcher tells. */
const LOOK_MS = 5000;
const WARN_EVERY_MS = 3_600_000;
/** A certificate that is renewed as is usual never gets as near to its end as that. */
const NEAR_END_MS_MAX = 14 * 24 * 3_600_000;
const NEAR_END_SHARE = 0.2;

/** SIGHUP makes it look at once. What is wrong is not taken over: what was in force stays, and the log says why. */
export function watchAccess({
  files,
  keyspaces,
  access,
  accessDigest,
  admit,
  log,
  now,
}: WatchAccessParts): AsyncDisposable {
  let inForce = access;
  let seen = accessDigest;
  let looking: Promise<void> = Promise.resolve();
  let warned = new Date(0);

  async function look(): Promise<void> {
    const before = seen;
    seen = await digestOf(files);
    if (seen !== before) await takeOver();
    warnOfTheEnd();
  }

  async function takeOver(): Promise<void> {
    const next = await loadAccess(files, keyspaces);
    if (Array.isArray(next)) {
      const problems = next.map(formatProblem);
      log.error({ problems }, 'callers and certificates: the changed files are wrong, the old ones stay in force');
      return;
    }
    inForce = next;
    admit(next);
    warned = new Date(0);
    const until = next.tls && lifetimeOf(next.tls).until;
    log.info({ callers: next.callers?.size, certificate_until: until }, 'callers and certificates: taken over anew');
  }

  function warnOfTheEnd(): void {
    if (!inForce.tls || now().getTime() - warned.getTime() < WARN_EVERY_MS) return;
    const { from, until } = lifetimeOf(inForce.tls);
    const leftMs = until.getTime() - now().getTime();
    const nearMs = Math.min(NEAR_END_MS_MAX, (until.getTime() - from.getTime()) * NEAR_END_SHARE);
    if (leftMs > nearMs) return;
    warned = now();
    log.warn(
      { certificate_until: until },
      leftMs > 0
        ? "the server's certificate ends soon: put a new one in its place, which is taken over without a restart"
        : "the server's certificate has ended: clients refuse to connect until there is a new one",
    );
  }

  // Whatever goes wrong in one look, the next one comes.
  const failed = (error: unknown) => log.error({ err: error }, 'callers and certificates: they could not be looked at');
  const next = () => (looking = looking.then(look).catch(failed));
  const timer = setInterval(() => void next(), LOOK_MS);
  const hangup = () => void next();
  process.on('SIGHUP', hangup);
  void next();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      process.off('SIGHUP', hangup);
      await looking;
    },
  };
}
