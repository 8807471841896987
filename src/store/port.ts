import type { Outbox } from '../audit/outbox.js';
import type { AuditEvent, EventType } from '../keys/event.js';
import type { BudgetAsk, BudgetBlock } from '../keys/budget.js';
import type { Load, Rule } from '../keys/change.js';
import type { Deadline } from '../keys/clock.js';
import type { Digest } from '../keys/digest.js';
import type { Key, KeyState, VerifiableKey } from '../keys/key.js';
import type { KeyspaceFacts, StoredKeyspace } from '../keys/keyspace-facts.js';
import type { Organization, OrganizationRef, VerifiableOrganization } from '../keys/organization.js';
import type { Refusal } from '../keys/refusal.js';
import type { KeySelector } from '../keys/select-key.js';

/**
 * Where keys, organizations and their events are kept. Both adapters are held to these promises by `test/contract`.
 * Every call throws a `StoreFault` where the store cannot answer before the deadline; none answers "nothing there"
 * because of an outage.
 */
export interface Store extends AsyncDisposable {
  /**
   * Loads what the rule needs, calls it, and commits its answer whole or not at all: keys, organization, events and
   * request together. Changes of one organization happen one after the other. Once it resolves, the change outlives a
   * crash. A refusal writes nothing. The rule may run more than once.
   * @throws Error, and writes nothing, for a change that contradicts what is stored: a digest or unique name that is
   *   taken, a `before` that is not the record stored
   */
  change<A>(load: Load, rule: Rule<A>, deadline: Deadline): Promise<A | Refusal>;

  /**
   * The key with this digest in a keyspace, and its organization, each as of no earlier than the call: never a state
   * that a change which was answered before the call began has replaced. The key comes without its last use.
   * @param digest 32 bytes
   */
  findByDigest(keyspace: string, digest: Uint8Array, deadline: Deadline): Promise<FoundKey | undefined>;

  /** The organization's record; for one that was never written, what holds for it (`newOrganization`). */
  findOrganization(organization: OrganizationRef, deadline: Deadline): Promise<Organization>;

  /**
   * The keys among which `selectKey` finds the one meant. At most two current keys of a name are loaded, enough to see
   * that it is ambiguous.
   */
  selectKeys(organization: OrganizationRef, selector: KeySelector, deadline: Deadline): Promise<Key[]>;

  /** Keys by sequence, descending. */
  listKeys(organization: OrganizationRef, query: KeyQuery, deadline: Deadline): Promise<Key[]>;

  /** Current keys in state EXPIRED: what a caller at its limit may want to revoke. */
  countExpired(organization: OrganizationRef, at: Date, deadline: Deadline): Promise<number>;

  /** Events by sequence, ascending, published or not, and the head that they lead to. */
  listEvents(organization: OrganizationRef, query: EventQuery, deadline: Deadline): Promise<EventPage>;

  /**
   * Every organization that was ever written, in no order, for a check of the whole. One that has events and no record,
   * which no change leaves behind, is answered as one that was never written.
   */
  organizations(): AsyncIterable<Organization>;

  /**
   * Notes when keys were last used: of several times for a key the latest stays, whatever the order. Bookkeeping: it
   * makes no event, and moves neither revision nor etag. Ids of no key are passed over or kept, and never seen.
   */
  recordUses(uses: ReadonlyMap<string, Date>, deadline: Deadline): Promise<void>;

  /**
   * Puts a key's digest into another form, if the key still has it in the form given. Bookkeeping, as above.
   * @throws StoreFault, or Error where another key of the keyspace has the digest
   */
  moveDigest(keyId: string, from: Digest, to: Digest, deadline: Deadline): Promise<void>;

  /** How many unrevoked keys are stored under each version of the pepper; 0 are bare. Versions without any are absent. */
  countDigests(deadline: Deadline): Promise<ReadonlyMap<number, number>>;

  /** Whether there are such keys under this version: answered in no time, however many there are. */
  hasDigests(pepperVersion: number, deadline: Deadline): Promise<boolean>;

  /**
   * Takes part of a lineage's budget as `takeBudget` says, by the store's own clock, atomically among all replicas. What
   * was taken stays taken, whatever becomes of the replica or of a server; where the outcome is unknown it is lost.
   */
  takeBudget(ask: BudgetAsk, deadline: Deadline): Promise<BudgetBlock>;

  /** As `takeBudget` with nothing wanted: opens no window, and answers a full one where none is open. */
  readBudget(ask: Omit<BudgetAsk, 'want'>, deadline: Deadline): Promise<BudgetBlock>;

  /** Whether other processes may take from the same budgets. */
  readonly isShared: boolean;

  /** Of each version of the pepper that was ever in use here, its fingerprint. */
  pepperFingerprints(deadline: Deadline): Promise<ReadonlyMap<number, string>>;

  /** @throws Error where another fingerprint is remembered for one of the versions */
  rememberPeppers(fingerprints: ReadonlyMap<number, string>, deadline: Deadline): Promise<void>;

  /** What stored keyspaces relied on at the last start, and whether unrevoked keys still do. */
  keyspaceFacts(deadline: Deadline): Promise<StoredKeyspace[]>;

  /** Others that were remembered stay: a replica with an older file must not make them forgotten. */
  rememberKeyspaces(facts: readonly KeyspaceFacts[], deadline: Deadline): Promise<void>;

  /** From now on until it is disposed the follower is told of every change, whichever process makes it. */
  follow(follower: Follower): Following;

  /**
   * Waits until no follower, in whichever process, may answer any more by records as they were before a change that was
   * answered before this call. Nothing goes on waiting after the deadline: who wants to know then asks again.
   */
  enforce(deadline: Deadline): Promise<Enforcement>;

  /** Resolves if the store could serve a change and a verification now. */
  ping(deadline: Deadline): Promise<void>;

  readonly outbox: Outbox;
}

/** Keeps records in memory. Is told of each change as it is committed, in their order, before anybody is answered so. */
export interface Follower {
  /** Its record as it is now; also of a new key. */
  keyChanged(key: Key): void;
  /** Its digest has another form now, and nothing else has changed. */
  digestMoved(keyId: string): void;
  organizationChanged(organization: Organization): void;
  /** Whatever is kept may be old. */
  allChanged(): void;
  /**
   * What is kept of an organization, which need not be read for another of its keys: its settings as they were told last,
   * at that revision or one before, since not every revision is told.
   */
  knownOrganization(path: string): VerifiableOrganization | undefined;
}

export interface Following extends AsyncDisposable {
  /**
   * Whether the follower may answer by what it was told: of every change for which `enforce` has been answered
   * `complete` it has been. Takes no time.
   */
  holds(): boolean;
  /** What `holds` rests on. Absent: the store has one process at a time, and no need of a lease. */
  readonly lease?: () => LeaseStanding;
  /**
   * As `findByDigest`, but as of no earlier than what the follower was told. Several that are asked for at once may be
   * read together.
   */
  read(keyspace: string, digest: Uint8Array): Promise<FoundKey | undefined>;
  /**
   * As `read`, at once. Absent: the store has to be waited for.
   * @throws StoreFault
   */
  readonly readNow?: (keyspace: string, digest: Uint8Array) => FoundKey | undefined;
}

export interface LeaseStanding {
  /** For how long the lease holds unless it is renewed; 0: there is none. */
  readonly remainingMs: number;
  /** That may answer from memory, this one among them, as they were last counted. */
  readonly replicas: number;
}

/** Whether what was taken away is so everywhere, or by when at the latest it is. */
export type Enforcement = { readonly complete: true } | { readonly complete: false; readonly byTime: Date };

export interface FoundKey {
  readonly key: VerifiableKey;
  readonly organization: VerifiableOrganization;
}

export interface KeyQuery {
  /** Empty: all. */
  readonly types: readonly string[];
  /** Only these, judged at `at`. */
  readonly states: readonly KeyState[];
  readonly at: Date;
  /** Only keys below this sequence. */
  readonly beforeSequence?: number;
  readonly limit: number;
}

export interface EventQuery {
  /** Also the rotations that took this key's place. */
  readonly keyId?: string;
  /** Empty: all. */
  readonly types: readonly EventType[];
  readonly afterSequence: number;
  readonly limit: number;
}

export interface EventPage {
  readonly events: AuditEvent[];
  /** Of the same moment as the events. */
  readonly head: { readonly sequence: number; readonly hash: string };
}
