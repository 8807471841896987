/**
 * Whether the service kept its promises: a recorded history, what is stored at the end and what was published are held
 * against each other. No service is asked here. What a client was not told counts as possible, so whatever is named a
 * violation is one.
 */
import { createHash } from 'node:crypto';

import { type Entry, type FaultKind, verifyChain } from '../../src/audit/verify-chain.js';
import type { Create, EndEarly, Mutation, Operation, Revoke, Rotate, Verify } from '../support/history.js';

export const VIOLATIONS = {
  'lost-key': 'a key that was acknowledged is not stored',
  'not-valid': 'a credential that was given out, and whose key nobody ended, does not verify at the end',
  'valid-after-revoke': 'a verification that began after the acknowledgement of an end was VALID',
  'valid-while-off':
    'a verification that began after the acknowledgement of a disabling or suspension, and before anybody asked to undo it, was VALID',
  'valid-after-expiry':
    'a verification that began after the time at which its key was to end, and after that was acknowledged, was VALID',
  'expiry-lost': 'a key whose earlier end was acknowledged has another at the end',
  'revocation-lost': 'a key whose end was acknowledged is not revoked at the end',
  'limit-exceeded': 'an organization had more keys than its limit',
  'second-key': 'one request made two keys',
  'request-not-compared': 'a request id was accepted again for another request',
  'wrong-denial': 'a verification was denied, and nothing that was asked before justifies it',
  'wrong-refusal': 'a call was refused, and nothing that was asked before justifies it',
  'internal-error': 'a caller was told of a defect',
  'rate-exceeded': 'a window admitted more requests than its limit',
  'event-missing': 'a change has no event, or the event was not published',
  'event-twice': 'a change has two events',
  'event-without-change': 'an event tells of what is not stored',
  'event-disorder': 'an event was published before one that precedes it',
  'chain-broken': 'the chain of events does not hold together',
} as const;
export type ViolationKind = keyof typeof VIOLATIONS;

export interface Violation {
  readonly kind: ViolationKind;
  readonly message: string;
}

export interface StoredKey {
  /** `keyspace/organization_id`. */
  readonly organization: string;
  readonly keyId: string;
  readonly name: string;
  readonly state: string;
  /** Absent: it does not expire. */
  readonly expireTimeMs?: number;
  /** Empty: none. */
  readonly supersededBy: string;
  readonly rotatedFrom: string;
}

/** What was read after the last operation, when nothing was in anybody's way any more. */
export interface Stored {
  readonly keys: readonly StoredKey[];
  /** Where each organization's chain ends. */
  readonly heads: ReadonlyMap<string, { readonly sequence: number; readonly hash: string }>;
  /** Wall clock before the first of the decisions. */
  readonly readTimeMs: number;
  /** What became of each credential, by its index. */
  readonly decisions: ReadonlyMap<number, string>;
}

export interface Evidence {
  readonly history: readonly Operation[];
  readonly stored: Stored;
  /** In the order in which consumers receive it. */
  readonly published: readonly Entry[];
  /** By organization; absent: none. */
  readonly keyLimits: ReadonlyMap<string, number>;
  /** Whether a wall clock was set meanwhile. */
  readonly clockWasSet?: boolean;
  /** A replica that is cut off learns so late that something was given back: its lease. Absent: at once. */
  readonly givenBackWithinMs?: number;
  /** What the service logged of its own defects: goes with an `internal-error`. */
  readonly defects?: readonly string[];
}

export interface Figures {
  /** By operation. */
  readonly acknowledged: Readonly<Record<string, number>>;
  readonly refused: number;
  readonly unknown: number;
  /** Acknowledged changes that are not stored, and changes without a published event. */
  readonly lost: number;
  /** Messages beyond the first of an event, which consumers drop. */
  readonly repeated: number;
  readonly outOfOrder: number;
  readonly events: number;
}

export interface Findings {
  readonly violations: readonly Violation[];
  readonly figures: Figures;
}

export async function check(evidence: Evidence): Promise<Findings> {
  const violations = [
    ...checkKeys(evidence),
    ...checkEnds(evidence),
    ...checkSwitches(evidence),
    ...checkExpiries(evidence),
    ...checkRequests(evidence),
    ...checkAnswers(evidence),
    ...checkLimits(evidence),
    ...checkRates(evidence),
    ...checkEvents(evidence),
    ...(await checkChains(evidence)),
  ];
  return { violations, figures: figuresOf(evidence, violations) };
}

/** One line for each kind that was found, with its first messages. */
export function describe({ violations }: Pick<Findings, 'violations'>): string {
  const kinds = [...new Set(violations.map(({ kind }) => kind))];
  return kinds
    .map((kind) => {
      const messages = violations.filter((one) => one.kind === kind).map(({ message }) => message);
      return `${kind} (${VIOLATIONS[kind]}), ${messages.length} times:\n  ${messages.slice(0, 5).join('\n  ')}`;
    })
    .join('\n');
}

type Ending = Revoke | Rotate;

/**
 * What was asked that ends a key, if it happened: by the key. A rotation ends the key whose place it takes, unless it keeps
 * it, and one that was kept when the place was taken before.
 */
function endingsOf(history: readonly Operation[]): Map<string, Ending[]> {
  const kept = new Map(
    history.flatMap((one) =>
      one.op === 'rotate' && one.keepsOld && one.outcome.kind === 'acknowledged'
        ? [[one.outcome.keyId, one.keyId]]
        : [],
    ),
  );
  const endings = new Map<string, Ending[]>();
  const add = (keyId: string, ending: Ending) => endings.set(keyId, [...(endings.get(keyId) ?? []), ending]);
  for (const one of history) {
    if ((one.op !== 'revoke' && one.op !== 'rotate') || one.outcome.kind === 'refused') continue;
    if (one.op === 'revoke' || !one.keepsOld) add(one.keyId, one);
    const older = one.op === 'rotate' ? kept.get(one.keyId) : undefined;
    if (older !== undefined) add(older, one);
  }
  return endings;
}

function isComplete({ outcome }: Ending): boolean {
  return outcome.kind === 'acknowledged' && outcome.complete;
}

/** Operations that gave a key, and to which: creates, imports and rotations that were acknowledged. */
function issuesOf(history: readonly Operation[]) {
  return history.flatMap((operation) =>
    (operation.op === 'create' || operation.op === 'import' || operation.op === 'rotate') &&
    operation.outcome.kind === 'acknowledged'
      ? [{ operation, keyId: operation.outcome.keyId, credential: operation.outcome.credential }]
      : [],
  );
}

/** A request to switch a key or an organization off or on, with its repeats. */
interface Switch {
  readonly off: boolean;
  readonly startMs: number;
  /** By then it had happened; infinite where that is not known. */
  readonly endMs: number;
  readonly name: string;
}

/** By the key, or by the organization. */
function switchesOf(history: readonly Operation[]): Map<string, Switch[]> {
  const asked = history.flatMap((operation) =>
    (operation.op === 'update-key' || operation.op === 'update-organization') && operation.outcome.kind !== 'refused'
      ? [{ operation, subject: operation.op === 'update-key' ? operation.keyId : operation.organization }]
      : [],
  );
  const requests = groupBy(asked, ({ operation, subject }) => `${subject} ${operation.request}`);
  const switches = [...requests.values()].flatMap((repeats) => {
    const [first] = repeats;
    if (!first) return [];
    const done = repeats.filter(({ operation: { outcome } }) => outcome.kind === 'acknowledged' && outcome.complete);
    return [
      {
        subject: first.subject,
        off: first.operation.off,
        startMs: Math.min(...repeats.map(({ operation }) => operation.startMs)),
        endMs: Math.min(...done.map(({ operation }) => operation.endMs)),
        name: name(first.operation),
      },
    ];
  });
  return groupBy(switches, ({ subject }) => subject);
}

interface Span {
  readonly startMs: number;
  readonly endMs: number;
}

/** Behind everything. */
const AT_THE_END: Span = { startMs: Number.POSITIVE_INFINITY, endMs: Number.POSITIVE_INFINITY };

/** What has switched it off for all of the span: nobody can have undone it. */
function whatKeptOff(switches: readonly Switch[], { startMs, endMs }: Span): Switch | undefined {
  return switches.find(
    (one) =>
      one.off &&
      one.endMs < startMs &&
      switches.every((other) => other.off || other.endMs < one.startMs || other.startMs > endMs),
  );
}

/** Whether it can have been off at a moment of the span, for whoever learns so late that it is on again. */
function mayBeOff(switches: readonly Switch[], { startMs, endMs }: Span, lateMs = 0): boolean {
  return switches.some(
    (one) =>
      one.off &&
      one.startMs < endMs &&
      !switches.some((other) => !other.off && one.endMs < other.startMs && other.endMs + lateMs < startMs),
  );
}

/** What a denial says was off, and who can have switched it. */
function isSwitchedOff(
  decision: string | undefined,
  key: readonly Switch[],
  all: readonly Switch[],
  at: Span,
  lateMs?: number,
): boolean {
  return (
    (decision === 'DISABLED' && mayBeOff(key, at, lateMs)) ||
    (decision === 'ORGANIZATION_SUSPENDED' && mayBeOff(all, at, lateMs))
  );
}

function organizationsOf(history: readonly Operation[]): Map<string, string> {
  return new Map(issuesOf(history).map(({ keyId, operation }) => [keyId, operation.organization]));
}

function* checkSwitches({ history, stored }: Evidence): Generator<Violation> {
  const switches = switchesOf(history);
  const organizations = organizationsOf(history);
  const keptOff = (keyId: string, at: Span) =>
    [keyId, organizations.get(keyId) ?? '']
      .map((subject) => whatKeptOff(switches.get(subject) ?? [], at))
      .find((one) => one !== undefined);
  for (const operation of history) {
    if (operation.op !== 'verify' || decisionOf(operation) !== 'VALID') continue;
    const by = keptOff(operation.keyId, operation);
    if (by) yield { kind: 'valid-while-off', message: `${name(operation)} for ${operation.keyId} after ${by.name}` };
  }
  for (const { keyId, credential } of issuesOf(history)) {
    if (credential === undefined || stored.decisions.get(credential) !== 'VALID') continue;
    const by = keptOff(keyId, AT_THE_END);
    if (by) yield { kind: 'valid-while-off', message: `${keyId} at the end, after ${by.name}` };
  }
}

/** How far the service's clock and that of the clients may be apart, on one machine. */
const CLOCK_FUZZ_MS = 100;

/** Requests to end a key earlier that may have happened: by the key. Only one is made for each key. */
function earlyEndsOf(history: readonly Operation[]): Map<string, EndEarly[]> {
  const asked = history.flatMap((one) => (one.op === 'end-early' && one.outcome.kind !== 'refused' ? [one] : []));
  return groupBy(asked, ({ keyId }) => keyId);
}

/** Whether its time can have come in the span. Who has set a clock can have made it come. */
function mayBeOver(ends: readonly EndEarly[], { endMs }: Span, clockWasSet: boolean): boolean {
  return ends.some((one) => one.startMs < endMs && (clockWasSet || one.expiryMs - CLOCK_FUZZ_MS < endMs));
}

function* checkExpiries({ history, stored, clockWasSet = false }: Evidence): Generator<Violation> {
  const verifications = groupBy(
    history.filter((one) => one.op === 'verify'),
    ({ keyId }) => keyId,
  );
  const keys = new Map(stored.keys.map((key) => [key.keyId, key]));
  for (const [keyId, ends] of earlyEndsOf(history)) {
    const told = ends.find(({ outcome }) => outcome.kind === 'acknowledged' && outcome.complete);
    if (!told) continue;
    const { expireTimeMs } = keys.get(keyId) ?? {};
    if (expireTimeMs !== told.expireTimeMs) {
      const at = expireTimeMs === undefined ? 'never ends' : `ends at ${expireTimeMs}`;
      yield { kind: 'expiry-lost', message: `${keyId}, which is to end at ${told.expireTimeMs}, ${at}` };
    }
    // Judged at the end too, where every clock is right again.
    const afterMs = Math.max(told.endMs, told.expiryMs + CLOCK_FUZZ_MS);
    const late = verifications.get(keyId)?.find((one) => one.startMs > afterMs && decisionOf(one) === 'VALID');
    if (late && !clockWasSet) {
      yield { kind: 'valid-after-expiry', message: `${name(late)} for ${keyId} after ${name(told)}` };
    }
  }
  for (const { keyId, credential } of issuesOf(history)) {
    const { expireTimeMs } = keys.get(keyId) ?? {};
    const isOver = expireTimeMs !== undefined && expireTimeMs + CLOCK_FUZZ_MS < stored.readTimeMs;
    if (isOver && credential !== undefined && stored.decisions.get(credential) === 'VALID') {
      yield { kind: 'valid-after-expiry', message: `${keyId} at the end` };
    }
  }
}

function* checkKeys({ history, stored }: Evidence): Generator<Violation> {
  const switches = switchesOf(history);
  const earlyEnds = earlyEndsOf(history);
  const keyIds = new Set(stored.keys.map(({ keyId }) => keyId));
  const endings = endingsOf(history);
  const told = new Set<string>();
  for (const { operation, keyId, credential } of issuesOf(history)) {
    if (!keyIds.has(keyId) && !told.has(keyId)) {
      told.add(keyId);
      yield { kind: 'lost-key', message: `${keyId}, which ${name(operation)} answered` };
    }
    if (credential === undefined || endings.has(keyId)) continue;
    const decision = stored.decisions.get(credential);
    if (decision === 'VALID' || decision === 'RATE_LIMITED') continue;
    const all = switches.get(operation.organization) ?? [];
    if (isSwitchedOff(decision, switches.get(keyId) ?? [], all, AT_THE_END)) continue;
    if (decision === 'EXPIRED' && earlyEnds.has(keyId)) continue;
    yield { kind: 'not-valid', message: `${keyId}, which ${name(operation)} answered, is ${decision ?? 'not judged'}` };
  }
}

function* checkEnds({ history, stored }: Evidence): Generator<Violation> {
  const states = new Map(stored.keys.map(({ keyId, state }) => [keyId, state]));
  const verifications = groupBy(
    history.filter((one) => one.op === 'verify'),
    ({ keyId }) => keyId,
  );
  const credentials = new Map(
    issuesOf(history).flatMap(({ keyId, credential }) => (credential === undefined ? [] : [[keyId, credential]])),
  );
  for (const [keyId, endings] of endingsOf(history)) {
    const [first] = endings.filter(({ outcome }) => outcome.kind === 'acknowledged');
    if (!first) continue;
    const state = states.get(keyId);
    const credential = credentials.get(keyId);
    const decision = credential === undefined ? undefined : stored.decisions.get(credential);
    if (state !== 'REVOKED' || decision === 'VALID') {
      const how = decision === 'VALID' ? 'still verifies' : `is ${state ?? 'gone'}`;
      yield { kind: 'revocation-lost', message: `${keyId}, which ${name(first)} ended, ${how}` };
    }
    const complete = endings.filter(isComplete);
    const endMs = Math.min(...complete.map((ending) => ending.endMs));
    const late = verifications.get(keyId)?.find((one) => one.startMs > endMs && decisionOf(one) === 'VALID');
    const ending = complete.find((one) => one.endMs === endMs);
    if (late && ending) {
      const after = (late.startMs - endMs).toFixed(1);
      yield { kind: 'valid-after-revoke', message: `${name(late)} for ${keyId}, ${after} ms after ${name(ending)}` };
    }
  }
}

function* checkRequests({ history, stored, published }: Evidence): Generator<Violation> {
  const issuing = issuesOf(history);
  const sameRequest = groupBy(issuing, ({ operation: { op, organization, request } }) =>
    [op, organization, request].join(' '),
  );
  for (const [request, issues] of sameRequest) {
    const bodies = new Set(issues.map(({ operation }) => bodyOf(operation)));
    if (bodies.size > 1) {
      yield { kind: 'request-not-compared', message: `${request} was accepted for ${[...bodies].join(' and ')}` };
      continue;
    }
    const keyIds = new Set(issues.map(({ keyId }) => keyId));
    if (keyIds.size > 1) yield { kind: 'second-key', message: `${request} answered ${[...keyIds].join(' and ')}` };
  }
  const imports = issuing.flatMap(({ operation, keyId }) =>
    operation.op === 'import'
      ? [{ credential: `${operation.organization} credential ${operation.credential}`, keyId }]
      : [],
  );
  for (const [credential, answers] of groupBy(imports, (one) => one.credential)) {
    const keyIds = new Set(answers.map(({ keyId }) => keyId));
    if (keyIds.size > 1) yield { kind: 'second-key', message: `${credential} is of ${[...keyIds].join(' and ')}` };
  }
  // A name is asked for under one request id only, or for one credential.
  const created = stored.keys.filter(({ rotatedFrom }) => rotatedFrom === '');
  for (const [key, keys] of groupBy(created, ({ organization, name }) => `${organization} ${name}`)) {
    if (keys.length > 1) yield { kind: 'second-key', message: `${keys.length} keys ${key}` };
  }
  const byRequest = groupBy(
    firstCopies(published).filter(({ data, type }) => data.request_id !== undefined && type.endsWith('.created')),
    ({ organization, data }) => `${organization} ${data.request_id ?? ''}`,
  );
  for (const [request, events] of byRequest) {
    if (events.length > 1) yield { kind: 'second-key', message: `${events.length} creations by ${request}` };
  }
}

function bodyOf(operation: Mutation): string {
  switch (operation.op) {
    case 'create':
      return operation.name;
    case 'import':
      return `${operation.name} ${operation.credential}`;
    case 'revoke':
      return operation.keyId;
    case 'rotate':
      return `${operation.keyId} ${operation.keepsOld ? 'kept' : 'ended'}`;
    case 'update-key':
      return `${operation.keyId} ${operation.off ? 'off' : 'on'}`;
    case 'end-early':
      return `${operation.keyId} ${operation.expireTimeMs}`;
    case 'update-organization':
      return operation.off ? 'off' : 'on';
  }
}

/** Denials and refusals that an outage, and not a change, must have caused. */
function* checkAnswers(evidence: Evidence): Generator<Violation> {
  const { history, keyLimits, defects = [], clockWasSet = false, givenBackWithinMs } = evidence;
  const endings = endingsOf(history);
  const earlyEnds = earlyEndsOf(history);
  const switches = switchesOf(history);
  const organizations = organizationsOf(history);
  const untold = [...defects];
  const mayHaveEnded = (keyId: string, beforeMs: number) =>
    endings.get(keyId)?.some(({ startMs }) => startMs < beforeMs) ?? false;
  for (const operation of history) {
    const { outcome } = operation;
    if (outcome.kind === 'unknown' && outcome.reason === 'INTERNAL') {
      yield { kind: 'internal-error', message: [name(operation), ...untold.splice(0)].join('\n    ') };
    }
    if (operation.op === 'verify') {
      const decision = decisionOf(operation);
      if (decision === undefined || decision === 'VALID' || decision === 'RATE_LIMITED') continue;
      if (decision === 'REVOKED' && mayHaveEnded(operation.keyId, operation.endMs)) continue;
      const all = switches.get(organizations.get(operation.keyId) ?? '') ?? [];
      if (isSwitchedOff(decision, switches.get(operation.keyId) ?? [], all, operation, givenBackWithinMs)) continue;
      const ends = earlyEnds.get(operation.keyId) ?? [];
      if (decision === 'EXPIRED' && mayBeOver(ends, operation, clockWasSet)) continue;
      yield { kind: 'wrong-denial', message: `${name(operation)} for ${operation.keyId}: ${decision}` };
    } else if (outcome.kind === 'refused' && !isJustified(operation, outcome.reason)) {
      yield { kind: 'wrong-refusal', message: `${name(operation)}: ${outcome.reason}` };
    }
  }

  function isJustified(operation: Mutation, reason: string): boolean {
    switch (reason) {
      case 'KEY_REVOKED':
      case 'KEY_SUPERSEDED':
        return 'keyId' in operation && mayHaveEnded(operation.keyId, operation.endMs);
      case 'EXPIRATION_INVALID':
        return operation.op === 'end-early' && mayBeOver([operation], operation, clockWasSet);
      case 'ORGANIZATION_SUSPENDED':
        return mayBeOff(switches.get(operation.organization) ?? [], operation);
      case 'REQUEST_ID_REUSED':
        return history.some(
          (other) =>
            other.op === operation.op &&
            other.organization === operation.organization &&
            other.request === operation.request &&
            bodyOf(other) !== bodyOf(operation) &&
            other.startMs < operation.endMs,
        );
      case 'KEY_LIMIT_REACHED':
        return operation.op === 'create' && isPossiblyFull(operation);
      default:
        return false;
    }
  }

  function isPossiblyFull({ organization, startMs, endMs }: Create): boolean {
    const requests = new Set<string>();
    const ended = new Set<string>();
    const rotated = new Set<string>();
    for (const other of history) {
      if (other.op === 'verify' || other.organization !== organization || other.outcome.kind === 'refused') continue;
      if (other.op === 'create' && other.startMs < endMs) requests.add(other.request);
      if (other.op === 'rotate') rotated.add(other.keyId);
      const acknowledged = other.outcome.kind === 'acknowledged' && other.endMs < startMs;
      if (other.op === 'revoke' && acknowledged) ended.add(other.keyId);
    }
    // A key whose place another took gives none back.
    for (const keyId of rotated) ended.delete(keyId);
    return requests.size - ended.size >= (keyLimits.get(organization) ?? Number.POSITIVE_INFINITY);
  }
}

function* checkLimits({ history, stored, published, keyLimits }: Evidence): Generator<Violation> {
  const endings = endingsOf(history);
  for (const [organization, limit] of keyLimits) {
    const current = stored.keys.filter(
      (key) => key.organization === organization && key.state !== 'REVOKED' && key.supersededBy === '',
    );
    if (current.length > limit) {
      yield { kind: 'limit-exceeded', message: `${organization} has ${current.length} keys, ${limit} are allowed` };
    }

    // What clients know to have been there at one moment, whatever store and topic say.
    const created = history.filter(
      (one) => one.op === 'create' && one.organization === organization && one.outcome.kind === 'acknowledged',
    );
    for (const at of created) {
      const alive = new Set<string>();
      for (const { keyId, operation } of issuesOf(created)) {
        if (operation.endMs > at.endMs) continue;
        if (!endings.get(keyId)?.some(({ startMs }) => startMs < at.endMs)) alive.add(keyId);
      }
      if (alive.size <= limit) continue;
      yield { kind: 'limit-exceeded', message: `${organization} had ${alive.size} keys when ${name(at)} was answered` };
      break;
    }

    const keyIds = new Set<string>();
    let sequence = 0;
    for (const event of firstCopies(published)) {
      if (event.organization !== organization) continue;
      // Behind a gap nothing is known any more.
      if (event.sequence !== (sequence += 1)) break;
      for (const keyId of endedBy(event)) keyIds.delete(keyId);
      const made = madeBy(event);
      if (made !== undefined) keyIds.add(made);
      if (keyIds.size <= limit) continue;
      yield { kind: 'limit-exceeded', message: `${organization} had ${keyIds.size} keys at event ${event.sequence}` };
      break;
    }
  }
}

/** Windows last a minute, so ends that are told less far apart, but for what two clocks may be off, are of one window. */
const RESET_FUZZ_MS = 50_000;

function* checkRates({ history, clockWasSet }: Evidence): Generator<Violation> {
  // Times that were told by different clocks say nothing of each other.
  if (clockWasSet === true) return;
  const admitted = history.flatMap((one) =>
    one.op === 'verify' && one.outcome.kind === 'acknowledged' && one.outcome.decision === 'VALID' && one.outcome.rate
      ? [{ keyId: one.keyId, ...one.outcome.rate }]
      : [],
  );
  for (const [keyId, answers] of groupBy(admitted, (one) => one.keyId)) {
    let window = { resetMs: Number.NEGATIVE_INFINITY, count: 0 };
    for (const { resetMs, limit } of answers.sort((a, b) => a.resetMs - b.resetMs)) {
      window =
        resetMs - window.resetMs < RESET_FUZZ_MS ? { ...window, count: window.count + 1 } : { resetMs, count: 1 };
      if (window.count === limit + 1) {
        yield { kind: 'rate-exceeded', message: `${keyId}: more than ${limit} in the window up to ${resetMs}` };
      }
    }
  }
}

interface EventFacts {
  readonly state?: string;
  /** RFC 3339. */
  readonly expire_time?: string | null;
}

interface PublishedEvent {
  readonly organization: string;
  readonly sequence: number;
  readonly type: string;
  readonly data: {
    readonly request_id?: string;
    readonly key?: { readonly key_id: string };
    readonly after?: EventFacts;
    readonly previous_key?: { readonly key_id: string; readonly after?: EventFacts };
    readonly hash: string;
    readonly previous_hash: string;
  };
  readonly timeMs: number;
}

/** The events as consumers keep them: what is not above the last sequence is dropped. */
function firstCopies(published: readonly Entry[]): PublishedEvent[] {
  const last = new Map<string, number>();
  return published.flatMap(({ text }) => {
    const event = toEvent(text);
    if (!event || event.sequence <= (last.get(event.organization) ?? 0)) return [];
    last.set(event.organization, event.sequence);
    return [event];
  });
}

function toEvent(text: string): PublishedEvent | undefined {
  try {
    const { type, time, data } = JSON.parse(text) as {
      type: string;
      time: string;
      data: PublishedEvent['data'] & { keyspace: string; organization_id: string; sequence: number };
    };
    const organization = `${data.keyspace}/${data.organization_id}`;
    return { organization, sequence: data.sequence, type, data, timeMs: Date.parse(time) };
  } catch {
    return undefined; // `checkChains` says so
  }
}

function madeBy({ type, data }: PublishedEvent): string | undefined {
  return /\.(created|rotated|imported)$/.test(type) ? data.key?.key_id : undefined;
}

/** Keys that it takes from those that count. */
function endedBy({ type, data }: PublishedEvent): string[] {
  if (type.endsWith('.revoked') && data.key) return [data.key.key_id];
  return type.endsWith('.rotated') && data.previous_key ? [data.previous_key.key_id] : [];
}

function revokedBy(event: PublishedEvent): string[] {
  const { previous_key: previous } = event.data;
  return previous && previous.after?.state !== 'REVOKED' ? [] : endedBy(event);
}

/** Each change has one event, each event its change. */
function* checkEvents({ history, stored, published }: Evidence): Generator<Violation> {
  const events = firstCopies(published);
  const made = countBy(events.flatMap((event) => madeBy(event) ?? []));
  const revoked = countBy(events.flatMap(revokedBy));
  const keys = new Map(stored.keys.map((key) => [key.keyId, key]));
  for (const { keyId, state } of keys.values()) {
    if (!made.has(keyId)) yield { kind: 'event-missing', message: `none tells that ${keyId} was made` };
    if (state === 'REVOKED' && !revoked.has(keyId)) {
      yield { kind: 'event-missing', message: `none tells that ${keyId} was revoked` };
    }
  }
  for (const [keyId, count] of made) {
    if (count > 1) yield { kind: 'event-twice', message: `${count} tell that ${keyId} was made` };
    if (!keys.has(keyId)) yield { kind: 'event-without-change', message: `${keyId} is not stored` };
  }
  for (const [keyId, count] of revoked) {
    if (count > 1) yield { kind: 'event-twice', message: `${count} tell that ${keyId} was revoked` };
    const key = keys.get(keyId);
    if (key && key.state !== 'REVOKED') yield { kind: 'event-without-change', message: `${keyId} is ${key.state}` };
  }
  const told = new Map(
    events.flatMap(({ data: { key, after } }) => (key && after?.state ? [[key.key_id, after.state]] : [])),
  );
  for (const { keyId, state } of keys.values()) {
    const isOff = state === 'DISABLED';
    if (state === 'REVOKED' || isOff === (told.get(keyId) === 'DISABLED')) continue;
    yield { kind: 'event-missing', message: `none tells that ${keyId} was switched ${isOff ? 'off' : 'on'}` };
  }
  const endsTold = new Set(
    events.flatMap(({ data: { key, after, previous_key: previous } }) => [
      `${key?.key_id} ${after?.expire_time}`,
      `${previous?.key_id} ${previous?.after?.expire_time}`,
    ]),
  );
  for (const { keyId, expireTimeMs } of keys.values()) {
    if (expireTimeMs === undefined) continue;
    const time = new Date(expireTimeMs).toISOString();
    if (!endsTold.has(`${keyId} ${time}`)) {
      yield { kind: 'event-missing', message: `none tells that ${keyId} ends at ${time}` };
    }
  }
  const updates = events.filter(({ type, data }) => type.endsWith('.updated') && data.request_id !== undefined);
  for (const [request, count] of countBy(
    updates.map(({ organization, data }) => `${organization} ${data.request_id}`),
  )) {
    if (count > 1) yield { kind: 'event-twice', message: `${count} tell of the update ${request}` };
  }
  // Also of what neither store nor topic remembers.
  for (const { operation, keyId } of issuesOf(history)) {
    if (!made.has(keyId) && !keys.has(keyId)) {
      yield { kind: 'event-missing', message: `none tells of ${keyId}, which ${name(operation)} answered` };
    }
  }
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return groups;
}

function countBy(values: readonly string[]): Map<string, number> {
  return new Map([...groupBy(values, (value) => value)].map(([value, all]) => [value, all.length]));
}

const KIND_OF_FAULT: Record<FaultKind, ViolationKind> = {
  gap: 'event-missing',
  tail: 'event-missing',
  order: 'event-disorder',
  repeat: 'event-twice',
  ahead: 'event-without-change',
  altered: 'chain-broken',
  fork: 'chain-broken',
  misplaced: 'chain-broken',
  foreign: 'chain-broken',
  unreadable: 'chain-broken',
};

async function checkChains({ stored, published }: Evidence): Promise<Violation[]> {
  const entries = async function* () {
    yield* published;
    await Promise.resolve();
  };
  const { faults } = await verifyChain(entries(), {
    repeats: 'counted',
    heads: stored.heads,
    headsAfter: () => Promise.resolve(stored.heads),
  });
  const violations = faults.map(({ kind, organization, sequence, message }) => ({
    kind: KIND_OF_FAULT[kind],
    message: `${organization ?? '?'} event ${sequence ?? '?'}: ${message}`,
  }));
  return [...violations, ...walkChains(published, stored)];
}

/** The same question again, answered by code that shares nothing with the service. */
function* walkChains(published: readonly Entry[], { heads }: Stored): Generator<Violation> {
  const chains = new Map<string, { sequence: number; hash: string; timeMs: number }>();
  for (const { text } of published) {
    const event = toEvent(text);
    if (!event) continue;
    const { organization, sequence, data, timeMs } = event;
    const at = `${organization} event ${sequence}`;
    const last = chains.get(organization) ?? { sequence: 0, hash: '0'.repeat(64), timeMs: 0 };
    if (sequence <= last.sequence) continue;
    if (sequence > last.sequence + 1) yield { kind: 'event-missing', message: `${at} follows ${last.sequence}` };
    else if (data.previous_hash !== last.hash) yield { kind: 'chain-broken', message: `${at} has another predecessor` };
    if (hashOf(text) !== data.hash) yield { kind: 'chain-broken', message: `${at} has another hash than it says` };
    if (timeMs < last.timeMs) yield { kind: 'chain-broken', message: `${at} is earlier than the one before` };
    chains.set(organization, { sequence, hash: data.hash, timeMs });
  }
  for (const [organization, { sequence, hash }] of heads) {
    const end = chains.get(organization);
    if (sequence > 0 && end?.hash !== hash) {
      const message = `${organization} ends at event ${end?.sequence ?? 0}, the store's chain at ${sequence}`;
      yield { kind: (end?.sequence ?? 0) > sequence ? 'event-without-change' : 'event-missing', message };
    }
  }
}

function hashOf(text: string): string {
  const event = JSON.parse(text) as { data: { hash?: string } };
  delete event.data.hash;
  return createHash('sha256').update(sorted(event)).digest('hex');
}

function sorted(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sorted).join()}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([member, its]) => `${JSON.stringify(member)}:${sorted(its)}`).join()}}`;
}

function figuresOf({ history, published }: Evidence, violations: readonly Violation[]): Figures {
  const acknowledged = history.filter(({ outcome }) => outcome.kind === 'acknowledged');
  const count = (...kinds: ViolationKind[]) => violations.filter(({ kind }) => kinds.includes(kind)).length;
  const distinct = new Set(published.map(({ text }) => toEvent(text)).map((one) => one && place(one)));
  return {
    acknowledged: Object.fromEntries(countBy(acknowledged.map(({ op }) => op))),
    refused: history.filter(({ outcome }) => outcome.kind === 'refused').length,
    unknown: history.filter(({ outcome }) => outcome.kind === 'unknown').length,
    lost: count('lost-key', 'revocation-lost', 'event-missing'),
    repeated: published.length - distinct.size,
    outOfOrder: count('event-disorder'),
    events: distinct.size,
  };
}

function place({ organization, sequence }: PublishedEvent): string {
  return `${organization} ${sequence}`;
}

function decisionOf({ outcome }: Verify): string | undefined {
  return outcome.kind === 'acknowledged' ? outcome.decision : undefined;
}

function name({ op, n, replica }: Operation): string {
  return `${op} ${n} (replica ${replica})`;
}
