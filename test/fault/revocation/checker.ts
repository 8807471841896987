/**
 * Whether access that was taken away stayed away, and nobody else lost theirs: judged by what clients asked and were told.
 * What a client was not told counts as possible, so whatever is named a violation is one.
 */
import { DRIFT } from '../../../src/store/mongodb/leases/members.js';
import { quantile } from '../../bench/report.js';
import type { Disturbance, GivingBack, RevocationHistory, Taking, Target, Verification, Way } from './history.js';

export const REVOCATION_VIOLATIONS = {
  'valid-after-enforced':
    'a verification was VALID that began after a call had answered that what it took away is enforced',
  'valid-after-promised': 'a verification was VALID that began after the time by which enforcement was to be complete',
  'wrong-denial': 'a verification was denied, and nothing that was asked before justifies it',
  'not-told': 'a verification got no decision from a replica that nothing kept from answering',
  'not-enforced': 'a call that had time enough was not told that it is enforced, while nothing was disturbed',
} as const;
export type RevocationViolationKind = keyof typeof REVOCATION_VIOLATIONS;

export interface RevocationViolation {
  readonly kind: RevocationViolationKind;
  readonly message: string;
}

export interface Latencies {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface RevocationFigures {
  /** Calls that took access away, by their way, whatever was answered. */
  readonly takings: Readonly<Record<string, number>>;
  /** How often a call answered that it is enforced. */
  readonly enforced: number;
  /** How often one answered that it is not yet. */
  readonly incomplete: number;
  /** Calls whose outcome nobody knows, by what was told instead. */
  readonly unknown: Readonly<Record<string, number>>;
  /** By decision, or by why there was none. */
  readonly verifications: Readonly<Record<string, number>>;
  /** Of those decided, how many after the key's end was enforced. */
  readonly afterEnforced: number;
  /** From the call to its answer that it is enforced, while nothing was disturbed. */
  readonly calmMs: readonly number[];
  /** While something was. */
  readonly disturbedMs: readonly number[];
}

export interface RevocationFindings {
  readonly violations: readonly RevocationViolation[];
  readonly figures: RevocationFigures;
}

/** Until a replica that was kept from the database, or from running, answers as before. */
const RECOVERY_MS = 5000;
/** By what two readings of the wall clock and the monotonic one may differ. */
const CLOCK_MS = 50;
/** Longer than an enforcement takes where all replicas answer, on a machine that is busy. */
const CALM_PATIENCE_MS = 5000;

export function checkRevocations(history: RevocationHistory): RevocationFindings {
  const { takings, verifications, disturbances } = history;
  const ends = endsOf(history);
  const violations: RevocationViolation[] = [];
  let afterEnforced = 0;
  for (const verification of verifications) {
    const of = ends.get(verification.keyId) ?? [];
    const { outcome } = verification;
    if (outcome.kind === 'failed') {
      if (!isExcused(verification, disturbances)) violations.push(notTold(verification));
      continue;
    }
    if (of.some((end) => isPast(end, verification, end.enforcedMs))) afterEnforced += 1;
    if (outcome.decision === 'VALID') violations.push(...staleYes(verification, of, disturbances));
    else if (!of.some((end) => justifies(end, verification))) violations.push(wrongDenial(verification));
  }
  violations.push(...takings.filter((taking) => isLate(taking, disturbances)).map(notEnforced));
  return { violations, figures: figuresOf(history, afterEnforced) };
}

/** One line for each kind that was found, with its first messages. */
export function describeRevocations({ violations }: Pick<RevocationFindings, 'violations'>): string {
  const kinds = [...new Set(violations.map(({ kind }) => kind))];
  return kinds
    .map((kind) => {
      const messages = violations.filter((one) => one.kind === kind).map(({ message }) => message);
      return `${kind} (${REVOCATION_VIOLATIONS[kind]}), ${messages.length} times:\n  ${messages.slice(0, 5).join('\n  ')}`;
    })
    .join('\n');
}

/** One taking away, with its repeats. */
interface End {
  readonly target: Target;
  /** From then on it may have happened. */
  readonly askedMs: number;
  /** A call had answered so by then; infinite where none has. */
  readonly enforcedMs: number;
  /** As a call has promised; infinite where none has. */
  readonly promisedMs: number;
  /** From then on it may have been given back. */
  readonly givenBackMs: number;
  /** From then on every replica knows that it was. */
  readonly knownBackMs: number;
}

/** By the key. */
function endsOf({ takings, givings, disturbances, leaseMs }: RevocationHistory): Map<string, End[]> {
  const asked = groupBy(
    takings.filter(({ outcome }) => outcome.kind !== 'refused'),
    ({ target }) => `${target.way} ${target.keys.join()} ${target.expiryMs ?? ''}`,
  );
  const returns = groupBy(givings, ({ target }) => `${target.way} ${target.keys.join()} `);
  const ends = new Map<string, End[]>();
  for (const [name, repeats] of asked) {
    for (const end of episodesOf(repeats, returns.get(name) ?? [], disturbances, leaseMs)) {
      for (const keyId of end.target.keys) ends.set(keyId, [...(ends.get(keyId) ?? []), end]);
    }
  }
  return ends;
}

/** Each goes until it is asked to be given back; what is asked from then on is another. */
function episodesOf(
  takings: readonly Taking[],
  givings: readonly GivingBack[],
  disturbances: readonly Disturbance[],
  leaseMs: number,
): End[] {
  const returns = givings.toSorted((a, b) => a.startMs - b.startMs);
  return [undefined, ...returns].flatMap((from, at) => {
    const fromMs = from?.startMs ?? Number.NEGATIVE_INFINITY;
    const givenBackMs = returns[at]?.startMs ?? Number.POSITIVE_INFINITY;
    const within = takings.filter(({ startMs }) => startMs >= fromMs && startMs < givenBackMs);
    const [first] = within;
    if (!first) return [];
    return [
      {
        target: first.target,
        askedMs: Math.min(...within.map(({ startMs }) => startMs)),
        enforcedMs: Math.min(...within.map((one) => (isComplete(one) ? one.endMs : Number.POSITIVE_INFINITY))),
        promisedMs: Math.min(...within.map((one) => promisedMsOf(one, disturbances))),
        givenBackMs,
        // A lease is over by then, by whichever clock, and without one the store is read.
        knownBackMs: Math.min(...returns.slice(at).map(({ endMs }) => endMs)) + DRIFT * leaseMs,
      },
    ];
  });
}

function isComplete({ outcome }: Taking): boolean {
  return outcome.kind === 'answered' && outcome.complete;
}

/** A replica whose wall clock is wrong names the time by that. */
function promisedMsOf(taking: Taking, disturbances: readonly Disturbance[]): number {
  const { outcome, replica } = taking;
  if (outcome.kind !== 'answered' || outcome.complete || outcome.byMs === undefined) return Number.POSITIVE_INFINITY;
  const isWrong = disturbances.some((one) => one.wallClocks && one.replicas.includes(replica) && overlaps(one, taking));
  return isWrong ? Number.POSITIVE_INFINITY : outcome.byMs + CLOCK_MS;
}

/** Whether it began after access was gone, and ended before anybody asked to give it back. */
function isPast({ target, givenBackMs }: End, { startMs, endMs, wide }: Verification, goneMs: number): boolean {
  if (target.way === 'narrow' && !wide) return false;
  return startMs >= Math.max(goneMs, (target.expiryMs ?? 0) + CLOCK_MS) && endMs < givenBackMs;
}

function staleYes(
  verification: Verification,
  ends: readonly End[],
  disturbances: readonly Disturbance[],
): RevocationViolation[] {
  const counts = (end: End) => end.target.way !== 'shorten' || !isWrongWallClock(verification, disturbances);
  const late = ends.filter(counts);
  const [enforced] = late.filter((end) => isPast(end, verification, end.enforcedMs));
  if (enforced) return [staleMessage('valid-after-enforced', verification, enforced, enforced.enforcedMs)];
  const [promised] = late.filter((end) => isPast(end, verification, end.promisedMs));
  return promised ? [staleMessage('valid-after-promised', verification, promised, promised.promisedMs)] : [];
}

/** An expiry is judged by the wall clock of the replica, whatever that shows. */
function isWrongWallClock(verification: Verification, disturbances: readonly Disturbance[]): boolean {
  return disturbances.some(
    (one) => one.wallClocks && one.replicas.includes(verification.replica) && overlaps(one, verification),
  );
}

function staleMessage(
  kind: RevocationViolationKind,
  verification: Verification,
  { target, askedMs }: End,
  goneMs: number,
): RevocationViolation {
  return {
    kind,
    message: `${told(verification)}; ${target.way} was asked at ${toSeconds(askedMs)} and complete at ${toSeconds(goneMs)}, ${Math.round(verification.startMs - goneMs)} ms before`,
  };
}

const DECISIONS: Record<Way, string> = {
  revoke: 'REVOKED',
  'revoke by name': 'REVOKED',
  rotate: 'REVOKED',
  disable: 'DISABLED',
  narrow: 'INSUFFICIENT_SCOPE',
  shorten: 'EXPIRED',
  suspend: 'ORGANIZATION_SUSPENDED',
};

/** What was given back may be seen late. */
function justifies({ target, askedMs, knownBackMs }: End, { outcome, startMs, endMs, wide }: Verification): boolean {
  if ((target.way === 'narrow' && !wide) || startMs > knownBackMs) return false;
  return outcome.kind === 'decided' && outcome.decision === DECISIONS[target.way] && askedMs <= endMs;
}

function wrongDenial(verification: Verification): RevocationViolation {
  return { kind: 'wrong-denial', message: told(verification) };
}

function notTold(verification: Verification): RevocationViolation {
  return { kind: 'not-told', message: told(verification) };
}

function isExcused(verification: Verification, disturbances: readonly Disturbance[]): boolean {
  return disturbances.some((one) => {
    if (!one.replicas.includes(verification.replica) || !overlaps(one, verification, RECOVERY_MS)) return false;
    switch (one.keeps) {
      case 'process':
      case 'database':
        return true;
      case 'cold':
        return !verification.warm;
      case 'nothing':
        return false;
    }
  });
}

function isLate(taking: Taking, disturbances: readonly Disturbance[]): boolean {
  if (taking.patienceMs < CALM_PATIENCE_MS || isComplete(taking) || taking.outcome.kind === 'refused') return false;
  return isCalm(taking, disturbances);
}

function notEnforced({ target, outcome, replica, startMs, endMs }: Taking): RevocationViolation {
  const how = outcome.kind === 'answered' ? 'answered incomplete' : `${outcome.kind}: ${outcome.reason}`;
  return {
    kind: 'not-enforced',
    message: `${target.way} of ${target.keys.join()} by replica ${replica}, ${toSeconds(startMs)} to ${toSeconds(endMs)}, ${how}`,
  };
}

/** Nothing went on that could delay it, and what did before is over. */
function isCalm(one: { startMs: number; endMs: number }, disturbances: readonly Disturbance[]): boolean {
  return !disturbances.some((disturbance) => overlaps(disturbance, one, RECOVERY_MS));
}

function overlaps(
  disturbance: Disturbance,
  { startMs, endMs }: { startMs: number; endMs: number },
  afterMs = 0,
): boolean {
  return disturbance.startMs <= endMs && startMs <= disturbance.endMs + afterMs;
}

function figuresOf(history: RevocationHistory, afterEnforced: number): RevocationFigures {
  const { takings, verifications, disturbances } = history;
  const complete = takings.filter(isComplete);
  const msOf = (of: readonly Taking[]) => of.map(({ startMs, endMs }) => endMs - startMs);
  return {
    takings: countBy(takings.map(({ target }) => target.way)),
    enforced: complete.length,
    incomplete: takings.filter(({ outcome }) => outcome.kind === 'answered' && !outcome.complete).length,
    unknown: countBy(takings.flatMap(({ outcome }) => (outcome.kind === 'unknown' ? [outcome.reason] : []))),
    verifications: countBy(
      verifications.map(({ outcome }) => (outcome.kind === 'decided' ? outcome.decision : outcome.reason)),
    ),
    afterEnforced,
    calmMs: msOf(complete.filter((one) => isCalm(one, disturbances))),
    disturbedMs: msOf(complete.filter((one) => !isCalm(one, disturbances))),
  };
}

export function latenciesOf(ms: readonly number[]): Latencies {
  const at = (share: number) => Math.round(quantile(ms, share) * 10) / 10;
  return { count: ms.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

function told({ keyId, replica, startMs, endMs, via, wide, warm, outcome }: Verification): string {
  const what = outcome.kind === 'decided' ? outcome.decision : outcome.reason;
  const how = `${via}${wide ? '' : ', narrow'}${warm ? ', warm' : ''}`;
  return `${keyId} at replica ${replica} (${how}), ${toSeconds(startMs)} to ${toSeconds(endMs)}: ${what}`;
}

function toSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(3)} s`;
}

function groupBy<T>(items: readonly T[], nameOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const name = nameOf(item);
    const group = groups.get(name);
    if (group) group.push(item);
    else groups.set(name, [item]);
  }
  return groups;
}

function countBy(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}
