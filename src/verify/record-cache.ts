/**
 * The records that verifications were judged by, kept in memory by the digest of their credential. Records, never
 * decisions: expiry, standing and scopes are judged at each call. The store tells of each change, and of two records of
 * the same key or organization the one with the greater revision counts, whichever came first: a record that was read
 * before a change and arrives after it brings nothing back.
 */
import type { Clock } from '../keys/clock.js';
import { type DigestPlace, digestPlaceOf, toHex } from '../keys/digest.js';
import type { Key, VerifiableKey } from '../keys/key.js';
import {
  type Organization,
  organizationPath,
  type OrganizationSettings,
  type VerifiableOrganization,
} from '../keys/organization.js';
import type { Follower, FoundKey } from '../store/port.js';

/** A key as it is kept. */
export type KnownKey = Omit<VerifiableKey, 'digest'> & {
  /**
   * As callers are told of it, once somebody has encoded that: a character for each byte, since an array of bytes takes
   * several times its length.
   */
  encoded?: string;
  /** As Envoy is told of it, in the same way. */
  encodedCheck?: string;
};

export interface KnownRecord {
  readonly key: KnownKey;
  /** Of the pepper that the digest is stored under; 0: bare. */
  readonly pepperVersion: number;
  readonly organization: OrganizationSettings;
}

export interface RecordCacheOptions {
  readonly clock: Clock;
  /** Keys that are kept at the most. */
  readonly keysMax?: number;
  /** Digests that are known to be of no key, kept apart so that noise takes no key's place. */
  readonly missesMax?: number;
}

/** Since it was made. */
export interface CacheCounts {
  /** Reads of the store that were begun for what is not known. */
  reads: number;
  /** Those who waited for a read that was under way. */
  joined: number;
  /** Keys that were put in. */
  filled: number;
  /** Keys that made room for others. */
  evicted: number;
}

const KEYS_MAX = 250_000;
const MISSES_MAX = 10_000;
/** Told of every new key, a miss could stay; but nobody asks for one for long who is no noise. */
const MISS_MS = 1000;

export class RecordCache implements Follower {
  readonly #clock: Clock;
  readonly #keysMax: number;
  readonly #missesMax: number;

  readonly #entries = new Map<DigestPlace, Entry>();
  readonly #byId = new Map<string, Entry>();
  readonly #owners = new Map<string, Owner>();
  /** When each is forgotten, on the monotonic clock. In the order in which they came, and so of their ends. */
  readonly #misses = new Map<DigestPlace, number>();
  /** In the order in which they were begun. */
  readonly #loads = new Map<DigestPlace, Load>();
  /** What was told while loads are under way, which may not have seen it. */
  readonly #toldKeys = new Tellings<string, Key>();
  readonly #toldOrganizations = new Tellings<string, Organization>();
  readonly #toldDigests = new Tellings<DigestPlace, true>();
  /** Counts what was told. */
  #tellings = 0;
  /** When any digest moved: to which one is not told. */
  #lastMove = 0;
  #resets = 0;
  #hand: MapIterator<Entry> | undefined;
  #missHand: MapIterator<DigestPlace> | undefined;
  readonly #counts: CacheCounts = { reads: 0, joined: 0, filled: 0, evicted: 0 };

  constructor({ clock, keysMax = KEYS_MAX, missesMax = MISSES_MAX }: RecordCacheOptions) {
    this.#clock = clock;
    this.#keysMax = keysMax;
    this.#missesMax = missesMax;
  }

  /** Keys that are kept. */
  get size(): number {
    return this.#entries.size;
  }

  get counts(): Readonly<CacheCounts> {
    return this.#counts;
  }

  /** Null: no key has the digest. Undefined: not known. */
  find(digest: DigestPlace): KnownRecord | null | undefined {
    const entry = this.#entries.get(digest);
    if (entry) {
      entry.used = true;
      return entry;
    }
    const endMs = this.#misses.get(digest);
    if (endMs === undefined) return undefined;
    if (this.#clock.monotonicMs() < endMs) return null;
    this.#misses.delete(digest);
    return undefined;
  }

  /**
   * Reads what is not known, once for all who ask meanwhile, and keeps it.
   * @throws what `read` throws
   */
  load(digest: DigestPlace, read: () => Promise<FoundKey | undefined>): Promise<KnownRecord | undefined> {
    const running = this.#loads.get(digest);
    if (running) {
      this.#counts.joined += 1;
      return running.record;
    }
    this.#counts.reads += 1;
    const since = this.#tellings;
    const record = this.#load(digest, read).finally(() => {
      this.#loads.delete(digest);
      const [oldest] = this.#loads.values();
      for (const told of [this.#toldKeys, this.#toldOrganizations, this.#toldDigests]) {
        told.dropUntil(oldest?.since ?? this.#tellings);
      }
    });
    this.#loads.set(digest, { record, since });
    return record;
  }

  /** Keeps what has just been read: nothing was told since. Null: no key has the digest. */
  fill(digest: DigestPlace, found: FoundKey | undefined): KnownRecord | null {
    this.#counts.reads += 1;
    if (found) return this.#keep(digest, found);
    this.#keepMiss(digest);
    return null;
  }

  keyChanged(key: Key): void {
    const digest = digestPlaceOf(key.keyspace, toHex(key.digest.bytes));
    this.#misses.delete(digest);
    if (this.#loads.size > 0) {
      this.#tellings += 1;
      this.#toldKeys.note(key.keyId, key, this.#tellings);
      this.#toldDigests.note(digest, true, this.#tellings);
    }
    const entry = this.#byId.get(key.keyId);
    if (!entry || entry.key.revision >= key.revision) return;
    if (entry.digest === digest) entry.replace(key);
    else this.#drop(entry);
  }

  digestMoved(keyId: string): void {
    // Its new digest may be known as nobody's, or just be found to be.
    this.#misses.clear();
    this.#lastMove = this.#tellings += 1;
    const entry = this.#byId.get(keyId);
    if (entry) this.#drop(entry);
  }

  organizationChanged(organization: Organization): void {
    const path = organizationPath(organization);
    if (this.#loads.size > 0) this.#toldOrganizations.note(path, organization, (this.#tellings += 1));
    this.#owners.get(path)?.replace(organization);
  }

  allChanged(): void {
    this.#resets += 1;
    this.#entries.clear();
    this.#byId.clear();
    this.#owners.clear();
    this.#misses.clear();
    this.#hand = undefined;
  }

  knownOrganization(path: string): VerifiableOrganization | undefined {
    return this.#owners.get(path)?.organization;
  }

  async #load(digest: DigestPlace, read: () => Promise<FoundKey | undefined>): Promise<KnownRecord | undefined> {
    for (;;) {
      const [tellings, resets] = [this.#tellings, this.#resets];
      const found = await read();
      if (this.#resets !== resets) continue;
      if (found) return this.#keep(digest, found);
      // It was made meanwhile.
      if ((this.#toldDigests.get(digest)?.telling ?? 0) > tellings) continue;
      // A record that moved meanwhile may have moved here: whoever asked has asked for its former form before.
      if (this.#lastMove <= tellings) this.#keepMiss(digest);
      return undefined;
    }
  }

  #keep(digest: DigestPlace, { key: read, organization }: FoundKey): KnownRecord {
    const key = newer(this.#toldKeys.get(read.keyId)?.what, read);
    const path = organizationPath(key);
    const known = this.#owners.get(path);
    const owner = known ?? new Owner(path, newer(this.#toldOrganizations.get(path)?.what, organization));
    if (known) known.replace(organization);
    else this.#owners.set(path, owner);
    const held = this.#byId.get(key.keyId);
    // Told since the read began, or read by a member that is ahead.
    if (held && held.key.revision > key.revision) return held;
    if (held) this.#drop(held, owner);
    const entry = new Entry(digest, key, owner);
    owner.keys += 1;
    this.#counts.filled += 1;
    this.#entries.set(digest, entry);
    this.#byId.set(key.keyId, entry);
    this.#misses.delete(digest);
    if (this.#entries.size > this.#keysMax) this.#evict(entry);
    return entry;
  }

  #keepMiss(digest: DigestPlace): void {
    this.#misses.delete(digest);
    this.#misses.set(digest, this.#clock.monotonicMs() + MISS_MS);
    // One iterator for all of them: a new one would pass over all that was deleted before.
    while (this.#misses.size > this.#missesMax) {
      this.#missHand ??= this.#misses.keys();
      const oldest = this.#missHand.next();
      if (oldest.done) this.#missHand = undefined;
      else this.#misses.delete(oldest.value);
    }
  }

  /** The first that was not asked for since the hand came by: the clock algorithm. */
  #evict(newest: Entry): void {
    for (;;) {
      this.#hand ??= this.#entries.values();
      const { value: entry, done } = this.#hand.next();
      if (done) this.#hand = undefined;
      else if (entry.used || entry === newest) entry.used = false;
      else {
        this.#counts.evicted += 1;
        this.#drop(entry);
        return;
      }
    }
  }

  #drop(entry: Entry, kept?: Owner): void {
    const { owner } = entry;
    this.#entries.delete(entry.digest);
    this.#byId.delete(entry.key.keyId);
    owner.keys -= 1;
    if (owner.keys === 0 && owner !== kept) this.#owners.delete(owner.path);
  }
}

interface Load {
  readonly record: Promise<KnownRecord | undefined>;
  /** How much had been told when it began. */
  readonly since: number;
}

/** What was told last of each, in the order in which it was. */
class Tellings<Of, What> {
  readonly #told = new Map<Of, { readonly what: What; readonly telling: number }>();

  get(of: Of): { readonly what: What; readonly telling: number } | undefined {
    return this.#told.get(of);
  }

  note(of: Of, what: What, telling: number): void {
    this.#told.delete(of);
    this.#told.set(of, { what, telling });
  }

  dropUntil(telling: number): void {
    for (const [of, told] of this.#told) {
      if (told.telling > telling) return;
      this.#told.delete(of);
    }
  }
}

/** An organization whose keys are kept: one object for all of them. */
class Owner {
  readonly path: string;
  keys = 0;
  #organization: VerifiableOrganization;

  constructor(path: string, organization: VerifiableOrganization) {
    this.path = path;
    this.#organization = verifiableOf(organization);
  }

  get organization(): VerifiableOrganization {
    return this.#organization;
  }

  replace(organization: VerifiableOrganization): void {
    if (organization.revision > this.#organization.revision) this.#organization = verifiableOf(organization);
  }
}

class Entry implements KnownRecord {
  readonly digest: DigestPlace;
  readonly owner: Owner;
  key: KnownKey;
  pepperVersion: number;
  used = false;

  constructor(digest: DigestPlace, key: VerifiableKey, owner: Owner) {
    this.digest = digest;
    this.owner = owner;
    this.key = knownOf(key);
    this.pepperVersion = key.digest.pepperVersion;
  }

  get organization(): OrganizationSettings {
    return this.owner.organization;
  }

  replace(key: VerifiableKey): void {
    this.key = knownOf(key);
    this.pepperVersion = key.digest.pepperVersion;
  }
}

function newer<R extends { readonly revision: number }>(told: R | undefined, read: R): R {
  return told && told.revision > read.revision ? told : read;
}

/** Without the rest of a record. */
function verifiableOf(organization: VerifiableOrganization): VerifiableOrganization {
  const { keyspace, organizationId, plan, suspended, revision } = organization;
  return { keyspace, organizationId, ...(plan !== undefined && { plan }), suspended, revision };
}

const NONE: readonly string[] = [];
const NO_LABELS: Readonly<Record<string, string>> = {};
const STANDINGS = { usable: { kind: 'usable' }, disabled: { kind: 'disabled' }, revoked: { kind: 'revoked' } } as const;

/** Of a record only what is needed, and what is alike in most of them once: there are many. */
function knownOf(key: VerifiableKey): KnownKey {
  const { keyId, lineageId, scopes, labels, standing } = key;
  return {
    keyId,
    // One text instead of two that are alike.
    lineageId: lineageId === keyId ? keyId : lineageId,
    keyspace: key.keyspace,
    organizationId: key.organizationId,
    name: key.name,
    type: key.type,
    scopes: scopes.length === 0 ? NONE : scopes,
    labels: Object.keys(labels).length === 0 ? NO_LABELS : labels,
    standing: STANDINGS[standing.kind],
    revision: key.revision,
    ...(key.publicId !== undefined && { publicId: key.publicId }),
    ...(key.clientId !== undefined && { clientId: key.clientId }),
    ...(key.expireTime && { expireTime: key.expireTime }),
  };
}
