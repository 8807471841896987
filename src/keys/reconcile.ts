/**
 * After a store was put back to an earlier state: what the sink still tells of the time between, and how access that was
 * taken away then is taken away again. No key gets access here: what was given in that time has to be given again. A plan is
 * set as it was, larger or smaller.
 */
import { type Change, type OrganizationState, unchanged } from './change.js';
import type { AuditEvent, EventDraft, KeyFacts, Mutation, OrganizationFacts } from './event.js';
import { type Key, type RevocationReason, revise, sameLabels, stateOf } from './key.js';
import { type Keyspace, planOf } from './keyspace.js';
import type { Organization, OrganizationRef, OrganizationSettings } from './organization.js';
import { revoked } from './revoke-key.js';

/** An event that the sink has and the store lost, and what it tells. */
export interface LostEvent {
  readonly event: AuditEvent;
  readonly previousHash: string;
  /** Absent: the event is about the organization itself. */
  readonly key?: NamedKey;
  /** Empty where the event tells of none. */
  readonly after: KeyFacts & OrganizationFacts;
  /** In a rotation: the key whose place was taken. */
  readonly previous?: NamedKey & { readonly after: KeyFacts };
  readonly reason?: RevocationReason;
}

export interface NamedKey {
  readonly name: string;
  readonly display: string;
}

/** What an organization's lost events mean for what is stored. */
export interface Losses {
  /** In order, the first one next to the head. */
  readonly lost: readonly LostEvent[];
  /** Keys that were revoked, and that the store has unrevoked. */
  readonly unrevoked: readonly { readonly key: Key; readonly reason: RevocationReason; readonly by: AuditEvent }[];
  /** Keys that were switched off, ended sooner or given fewer scopes, and that the store has as before. */
  readonly wider: readonly { readonly key: Key; readonly narrowed: Narrowed; readonly by: AuditEvent }[];
  /** The event that suspended the organization, which the store has unsuspended. */
  readonly suspension?: AuditEvent;
  /** The organization was given another plan. */
  readonly plan?: { readonly name: string; readonly by: AuditEvent };
  /** Keys that were made and cannot come back, since no event holds a digest. */
  readonly gone: readonly GoneKey[];
  /** What gave more, or the same under another name: it is not done again. */
  readonly leftOut: readonly LeftOut[];
}

export interface GoneKey extends NamedKey {
  readonly keyId: string;
  /** The event that made it. */
  readonly by: AuditEvent;
  /** It was revoked as well: whoever imported it again would bring it back to life. */
  readonly revocation?: Revocation;
}

export interface Revocation {
  readonly reason: RevocationReason;
  readonly by: AuditEvent;
}

/** Those facts of a key that have to change. */
export interface Narrowed {
  readonly disabled?: true;
  readonly expireTime?: Date;
  readonly scopes?: readonly string[];
}

export interface LeftOut {
  /** Absent: the organization. */
  readonly key?: Key;
  readonly what: 'name' | 'labels' | 'scopes' | 'expire_time' | 'enabled' | 'plan' | 'unsuspended';
  readonly by: AuditEvent;
}

export interface Reconcile {
  readonly organization: OrganizationRef;
  /** Each one next to the one before. */
  readonly lost: readonly LostEvent[];
  /**
   * Those before them that are in the store again and have not been acted upon, where they are too many for one change.
   * Absent: none.
   */
  readonly putBack?: readonly LostEvent[];
  /** Absent: the keyspaces file has it no more, and plans are left as they are. */
  readonly keyspace: Keyspace | undefined;
}

export interface ReconcileDraw {
  readonly now: Date;
  /** As many as `keysNamed` answers for all these events, and one. */
  readonly eventIds: readonly string[];
}

/** The keys that the lost events name: a store must be asked for them. */
export function keysNamed(lost: readonly LostEvent[]): string[] {
  const named = lost.flatMap(({ event }) => [event.keyId, event.previousKeyId ?? '']);
  return [...new Set(named.filter((keyId) => keyId !== ''))];
}

/**
 * Puts the lost events back and takes away again what they took away. Done again, it does nothing. Answers undefined, and
 * changes nothing, where the lost events do not follow what is stored.
 */
export function reconcile(state: OrganizationState, ask: Reconcile, draw: ReconcileDraw): Change<Losses | undefined> {
  const losses = judgeLosses(state, ask);
  if (!losses || losses.lost.length === 0) return unchanged(losses);
  const mutation: Mutation = {
    organization: ask.organization,
    caller: 'keyreeve reconcile',
    actor: { type: 'SYSTEM', id: 'keyreeve' },
  };
  const changes = [
    ...losses.unrevoked.map((loss) => revokeAgain(loss, mutation, draw.now)),
    ...losses.wider.map((loss) => narrowAgain(loss, mutation, draw.now)),
  ];
  const settings = settingsAgain(losses, state.organization, ask.keyspace, mutation, draw.now);
  const drafts = [...changes.map(({ event }) => event), ...(settings ? [settings.event] : [])];
  return {
    answer: losses,
    ...(settings && { settings: settings.after }),
    widens: false,
    recovered: losses.lost.map(({ event }) => event),
    put: changes.map(({ put }) => put),
    events: drafts.map((draft, at) => {
      const eventId = draw.eventIds[at];
      if (eventId === undefined) throw new Error('more keys change than the lost events name');
      return { ...draft, eventId };
    }),
  };
}

/**
 * Puts the first of many lost events back, and does nothing else: what they took away is taken away with the last of
 * them, by `reconcile`. Answers false, and changes nothing, where they do not follow what is stored.
 */
export function putBack({ organization }: OrganizationState, first: readonly LostEvent[]): Change<boolean> {
  const lost = follow(organization, first);
  if (!lost || lost.length === 0) return unchanged(lost !== undefined);
  return { answer: true, widens: false, recovered: lost.map(({ event }) => event), put: [], events: [] };
}

/** What the lost events mean; undefined where they do not follow what is stored. */
export function judgeLosses(
  { organization, listed }: OrganizationState,
  { lost: given, putBack: before = [], keyspace }: Pick<Reconcile, 'lost' | 'putBack' | 'keyspace'>,
): Losses | undefined {
  const lost = follow(organization, given);
  if (!lost) return undefined;
  const told = tell([...before, ...lost]);
  const stored = listed.flatMap((key) => {
    const story = told.keys.get(key.keyId);
    return story ? [{ key, story }] : [];
  });
  const unrevoked = stored.flatMap(({ key, story: { revocation } }) =>
    revocation && key.standing.kind !== 'revoked' ? [{ key, ...revocation }] : [],
  );
  // A revoked key gives nothing, whatever else is said of it.
  const others = stored.filter(({ key, story }) => !story.revocation && key.standing.kind !== 'revoked');
  const { plan, suspended } = told;
  const known = new Set(listed.map(({ keyId }) => keyId));
  const changesPlan = plan && keyspace?.plans.has(plan.is) && planOf(keyspace, organization).name !== plan.is;
  return {
    lost,
    unrevoked,
    wider: others.flatMap(narrowedBy),
    ...(suspended?.is && !organization.suspended && { suspension: suspended.by }),
    ...(changesPlan && { plan: { name: plan.is, by: plan.by } }),
    gone: [...told.made]
      .filter(([keyId]) => !known.has(keyId))
      .map(([keyId, made]) => {
        const revocation = told.keys.get(keyId)?.revocation;
        return { keyId, ...made, ...(revocation && { revocation }) };
      }),
    leftOut: [
      ...others.flatMap(leftOutOf),
      ...(plan && !keyspace?.plans.has(plan.is) ? [{ what: 'plan' as const, by: plan.by }] : []),
      ...(suspended?.is === false && organization.suspended
        ? [{ what: 'unsuspended' as const, by: suspended.by }]
        : []),
    ],
  };
}

/** Those that the store still lacks; undefined where they do not link to its head, or not to one another. */
function follow(head: Organization, lost: readonly LostEvent[]): readonly LostEvent[] | undefined {
  const lacking = lost.filter(({ event }) => event.sequence > head.sequence);
  if (lost.some(({ event }) => event.sequence === head.sequence && event.hash !== head.hash)) return undefined;
  let last: { readonly sequence: number; readonly hash: string } = head;
  for (const { event, previousHash } of lacking) {
    if (event.sequence !== last.sequence + 1 || previousHash !== last.hash) return undefined;
    last = event;
  }
  return lacking;
}

/** The last word on a fact, and the event that spoke it. */
interface Word<T> {
  readonly is: T;
  readonly by: AuditEvent;
}

/** How a key's facts were in the end, of those that the lost events tell of. */
interface Story {
  revocation?: Revocation;
  disabled?: Word<boolean>;
  expireTime?: Word<Date | null>;
  scopes?: Word<readonly string[]>;
  name?: Word<string>;
  labels?: Word<Readonly<Record<string, string>>>;
}

function tell(lost: readonly LostEvent[]) {
  const keys = new Map<string, Story>();
  const made = new Map<string, NamedKey & { readonly by: AuditEvent }>();
  let plan: Word<string> | undefined;
  let suspended: Word<boolean> | undefined;
  const hear = (keyId: string, facts: KeyFacts, reason: RevocationReason, by: AuditEvent) => {
    const story = keys.get(keyId) ?? {};
    keys.set(keyId, story);
    if (facts.state === 'REVOKED') story.revocation ??= { reason, by };
    else if (facts.state) story.disabled = { is: facts.state === 'DISABLED', by };
    if (facts.expireTime !== undefined) story.expireTime = { is: facts.expireTime, by };
    if (facts.scopes) story.scopes = { is: facts.scopes, by };
    if (facts.name !== undefined) story.name = { is: facts.name, by };
    if (facts.labels) story.labels = { is: facts.labels, by };
  };
  for (const { event, key, after, previous, reason } of lost) {
    if (after.plan !== undefined) plan = { is: after.plan, by: event };
    if (after.suspended !== undefined) suspended = { is: after.suspended, by: event };
    if (key) hear(event.keyId, after, reason ?? 'OTHER', event);
    if (key && MAKING.has(event.type)) made.set(event.keyId, { ...key, by: event });
    if (previous && event.previousKeyId !== undefined) hear(event.previousKeyId, previous.after, 'SUPERSEDED', event);
  }
  return { keys, made, plan, suspended };
}

const MAKING: ReadonlySet<AuditEvent['type']> = new Set(['key.created', 'key.imported', 'key.rotated']);

interface Stored {
  readonly key: Key;
  readonly story: Story;
}

function narrowedBy({ key, story: { disabled, expireTime, scopes } }: Stored): Losses['wider'] {
  const kept = scopes && key.scopes.filter((scope) => scopes.is.includes(scope));
  const switchedOff = disabled?.is && key.standing.kind === 'usable' ? disabled : undefined;
  const sooner = expireTime && endsSooner(expireTime.is, key.expireTime ?? null) ? expireTime : undefined;
  const fewer = kept && kept.length < key.scopes.length ? scopes : undefined;
  const by = [switchedOff, sooner, fewer].flatMap((word) => (word ? [word.by] : [])).sort(bySequence);
  const last = by.at(-1);
  if (!last) return [];
  const narrowed: Narrowed = {
    ...(switchedOff && { disabled: true }),
    ...(sooner?.is && { expireTime: sooner.is }),
    ...(fewer && kept && { scopes: kept }),
  };
  return [{ key, narrowed, by: last }];
}

function leftOutOf({ key, story }: Stored): LeftOut[] {
  const { name, labels, scopes, expireTime, disabled } = story;
  const differing: [LeftOut['what'], Word<unknown> | undefined][] = [
    ['name', name?.is === key.name ? undefined : name],
    ['labels', labels && sameLabels(labels.is, key.labels) ? undefined : labels],
    ['scopes', scopes?.is.some((scope) => !key.scopes.includes(scope)) ? scopes : undefined],
    ['expire_time', expireTime && endsSooner(key.expireTime ?? null, expireTime.is) ? expireTime : undefined],
    ['enabled', disabled?.is === false && key.standing.kind === 'disabled' ? disabled : undefined],
  ];
  return differing.flatMap(([what, word]) => (word ? [{ key, what, by: word.by }] : []));
}

/** Null: never. */
function endsSooner(a: Date | null, b: Date | null): boolean {
  return a !== null && (b === null || a < b);
}

function bySequence(a: AuditEvent, b: AuditEvent): number {
  return a.sequence - b.sequence;
}

type Draft = Omit<EventDraft, 'eventId'>;

interface ChangedKey {
  readonly put: { readonly before: Key; readonly after: Key };
  readonly event: Draft;
}

function revokeAgain({ key, reason, by }: Losses['unrevoked'][number], mutation: Mutation, now: Date): ChangedKey {
  const reasonDetail = because(by);
  const after = revoked(key, { mutation, reason, reasonDetail }, now);
  const [was, is] = [{ state: stateOf(key, now) }, { state: stateOf(after, now) }];
  const about = { type: 'key.revoked', time: now, mutation, key: after } as const;
  return { put: { before: key, after }, event: { ...about, before: was, after: is, reason, reasonDetail } };
}

function narrowAgain({ key, narrowed, by }: Losses['wider'][number], mutation: Mutation, now: Date): ChangedKey {
  const { disabled, expireTime, scopes } = narrowed;
  const after = revise(key, {
    ...(disabled && { standing: { kind: 'disabled' } }),
    ...(expireTime && { expireTime }),
    ...(scopes && { scopes }),
  });
  const factsOf = (one: Key): KeyFacts => ({
    ...((disabled ?? expireTime) && { state: stateOf(one, now) }),
    ...(expireTime && { expireTime: one.expireTime ?? null }),
    ...(scopes && { scopes: one.scopes }),
  });
  const about = { type: 'key.updated', time: now, mutation, key: after } as const;
  return {
    put: { before: key, after },
    event: { ...about, before: factsOf(key), after: factsOf(after), reasonDetail: because(by) },
  };
}

function settingsAgain(
  { suspension, plan }: Losses,
  organization: Organization,
  keyspace: Keyspace | undefined,
  mutation: Mutation,
  now: Date,
): { after: OrganizationSettings; event: Draft } | undefined {
  const by = [suspension, plan?.by]
    .filter((event) => event !== undefined)
    .sort(bySequence)
    .at(-1);
  if (!by) return undefined;
  const name = plan?.name ?? organization.plan;
  const after = {
    ...(name !== undefined && { plan: name }),
    suspended: organization.suspended || suspension !== undefined,
  };
  const factsOf = (settings: OrganizationSettings): OrganizationFacts => ({
    ...(plan && keyspace && { plan: planOf(keyspace, settings).name }),
    ...(suspension && { suspended: settings.suspended }),
  });
  const about = { type: 'organization.updated', time: now, mutation } as const;
  return {
    after,
    event: { ...about, before: factsOf(organization), after: factsOf(after), reasonDetail: because(by) },
  };
}

function because({ sequence, eventId, time }: AuditEvent): string {
  return `the store was put back to an earlier state; as event ${sequence} (${eventId}) of ${time.toISOString()} has it`;
}
