import { Binary, type Filter } from 'mongodb';

import type { Load, OrganizationState } from '../../keys/change.js';
import type { Deadline } from '../../keys/clock.js';
import { digestPlaceOf, toHex } from '../../keys/digest.js';
import type { AuditEvent } from '../../keys/event.js';
import type { Key, KeyState, Standing } from '../../keys/key.js';
import type { StoredKeyspace } from '../../keys/keyspace-facts.js';
import {
  type Organization,
  type OrganizationRef,
  type VerifiableOrganization,
  newOrganization,
  organizationPath,
} from '../../keys/organization.js';
import type { KeySelector } from '../../keys/select-key.js';
import type { EventPage, EventQuery, FoundKey, KeyQuery } from '../port.js';
import { lastUsesOf } from './bookkeeping.js';
import type { Ask, Connection } from './connection.js';
import { Gate } from './gate.js';
import {
  type EventRow,
  type KeyRow,
  type VerifiableOrganizationRow,
  type VerifiableRow,
  UNREVOKED,
  VERIFIABLE,
  VERIFIABLE_ORGANIZATION,
  fromEventRow,
  fromKeyRow,
  fromKeyspaceRow,
  fromOrganizationRow,
  fromRefFields,
  fromVerifiableOrganizationRow,
  fromVerifiableRow,
  toRefFields,
  toRequestRowId,
} from './rows.js';
import type { Collections } from './schema.js';

export type Reads = ReturnType<typeof makeReads>;

/**
 * Each keeps the whole set at work. Without a lease every verification is one, and as many as there are connections would
 * keep the replica from ever getting a lease.
 */
const LINEARIZABLE_AT_ONCE = 10;

export function makeReads(connection: Connection, collections: Collections) {
  const { keys, organizations, events, requests, keyspaces, meta } = collections;
  const gate = new Gate(LINEARIZABLE_AT_ONCE);

  async function organization(ask: Ask, ref: OrganizationRef): Promise<Organization> {
    const row = await ask((bounds) => organizations.findOne({ _id: organizationPath(ref) }, bounds));
    return row ? fromOrganizationRow(row) : newOrganization(ref);
  }

  function findKeys(ask: Ask, filter: Filter<KeyRow>): Promise<KeyRow[]> {
    return ask((bounds) => keys.find(filter, bounds).toArray());
  }

  async function selectRows(ask: Ask, ref: OrganizationRef, selector: KeySelector): Promise<KeyRow[]> {
    switch (selector.by) {
      case 'key_id':
        return findKeys(ask, { _id: selector.keyId, ...toRefFields(ref) });
      case 'client_id':
        return findKeys(ask, { ...toRefFields(ref), client_id: selector.clientId });
      case 'name':
        return findNamed(ask, ref, selector.name);
    }
  }

  /** Two current keys of the name at most, else the one revoked last. */
  async function findNamed(ask: Ask, ref: OrganizationRef, name: string): Promise<KeyRow[]> {
    const current = await findCurrent(ask, ref, name);
    if (current.length > 0) return current;
    return ask((bounds) =>
      keys
        .find({ ...toRefFields(ref), name, current: false, revoke_time: { $exists: true } }, bounds)
        .sort({ revoke_time: -1, sequence: -1 })
        .limit(1)
        .toArray(),
    );
  }

  function findCurrent(ask: Ask, ref: OrganizationRef, name: string): Promise<KeyRow[]> {
    return ask((bounds) =>
      keys
        .find({ ...toRefFields(ref), name, current: true }, bounds)
        .limit(2)
        .toArray(),
    );
  }

  /** What is unrevoked of the lineages of these keys, themselves left out. */
  async function relatedTo(ask: Ask, ref: OrganizationRef, selected: readonly KeyRow[]): Promise<KeyRow[]> {
    if (selected.length === 0) return [];
    const lineage_id = { $in: [...new Set(selected.map((row) => row.lineage_id))] };
    const related = await findKeys(ask, { ...toRefFields(ref), lineage_id, standing: { $in: UNREVOKED } });
    return related.filter(({ _id }) => !selected.some((row) => row._id === _id));
  }

  /** The key that has the first of these digests that one has. */
  async function findHolder(ask: Ask, keyspace: string, digests: readonly Uint8Array[]): Promise<KeyRow | undefined> {
    const rows = await findKeys(ask, { keyspace, digest: { $in: digests.map((digest) => new Binary(digest)) } });
    return digests.flatMap((digest) => rows.filter((row) => Buffer.compare(row.digest.buffer, digest) === 0))[0];
  }

  async function request(ask: Ask, ref: OrganizationRef, identity: NonNullable<Load['request']>) {
    const row = await ask((bounds) => requests.findOne({ _id: toRequestRowId(ref, identity) }, bounds));
    if (!row) return undefined;
    const rows = row.key_ids.length > 0 ? await findKeys(ask, { _id: { $in: row.key_ids } }) : [];
    // In the order in which they were answered; the database has its own.
    return { hash: row.hash, rows: row.key_ids.flatMap((keyId) => rows.filter((one) => one._id === keyId)) };
  }

  /** The organizations of these keys by their paths, as verifications need them; one that was never written is absent. */
  async function ownersOf(ask: Ask, rows: readonly VerifiableRow[], memory?: OrganizationMemory): Promise<Owners> {
    const owners = new Map<string, VerifiableOrganization>();
    const unknown = new Set<string>();
    for (const row of rows) {
      const path = organizationPath(fromRefFields(row));
      const owner = memory?.known(path);
      if (owner) owners.set(path, owner);
      else unknown.add(path);
    }
    if (unknown.size === 0) return owners;
    const filter = { _id: { $in: [...unknown] } };
    const read = await ask((bounds) =>
      organizations
        .find<VerifiableOrganizationRow>(filter, { ...bounds, projection: VERIFIABLE_ORGANIZATION })
        .toArray(),
    );
    for (const row of read) {
      const owner = fromVerifiableOrganizationRow(row);
      owners.set(row._id, owner);
      memory?.noteRead(owner);
    }
    return owners;
  }

  async function toKeys(ask: Ask, rows: readonly KeyRow[]): Promise<Key[]> {
    const toKey = await withLastUses(ask, rows);
    return rows.map(toKey);
  }

  /** Reads the last uses of all these keys at once; what it answers makes a key of one of them. */
  async function withLastUses(ask: Ask, rows: readonly KeyRow[]): Promise<(row: KeyRow) => Key> {
    const lastUses = await lastUsesOf(
      ask,
      collections,
      rows.map(({ _id }) => _id),
    );
    return (row) => fromKeyRow(row, lastUses.get(row._id));
  }

  return {
    organization,

    /** What a rule sees besides the organization. */
    async loaded(ask: Ask, load: Load): Promise<Omit<OrganizationState, 'organization'>> {
      const { organization: ref, selector, keyIds = [], name, digests = [] } = load;
      const earlier = load.request && (await request(ask, ref, load.request));
      const [nameHolder] = name === undefined ? [] : await findCurrent(ask, ref, name);
      const digestHolder = digests.length > 0 ? await findHolder(ask, ref.keyspace, digests) : undefined;
      const selected = selector ? await selectRows(ask, ref, selector) : [];
      const related = load.withLineage ? await relatedTo(ask, ref, selected) : [];
      const listed = keyIds.length > 0 ? await findKeys(ask, { _id: { $in: [...keyIds] }, ...toRefFields(ref) }) : [];
      const holders = [nameHolder, digestHolder].filter((row) => row !== undefined);
      const toKey = await withLastUses(ask, [...selected, ...related, ...listed, ...holders, ...(earlier?.rows ?? [])]);
      return {
        selected: [...selected, ...related].map(toKey),
        listed: listed.map(toKey),
        ...(nameHolder && { nameHolder: toKey(nameHolder) }),
        ...(digestHolder && { digestHolder: toKey(digestHolder) }),
        ...(earlier && { request: { hash: earlier.hash, keys: earlier.rows.map(toKey) } }),
      };
    },

    /**
     * Linearizable, which the server promises for a look-up that can match one document only: a majority read can be
     * answered by a primary that was deposed while it was paused, and does not know of a revocation since. What is read
     * next is read as of the time of that.
     */
    findByDigest(keyspace: string, digest: Uint8Array, deadline: Deadline): Promise<FoundKey | undefined> {
      const filter = { keyspace, digest: new Binary(digest) };
      return gate.run(deadline, async (held) => {
        const { answer: row, time } = await connection.timed(deadline, (ask) =>
          held(ask)((bounds) =>
            keys.findOne<VerifiableRow>(filter, { ...bounds, projection: VERIFIABLE, readConcern: 'linearizable' }),
          ),
        );
        if (!row) return undefined;
        return toFound(row, await connection.after(time, deadline, (ask) => ownersOf(held(ask), [row])));
      });
    },

    /** Resolves once the primary has proven, by a write of its own, that a majority follows it. */
    async confirm(ask: Ask): Promise<void> {
      await ask((bounds) => meta.findOne({ _id: 'schema' }, { ...bounds, readConcern: 'linearizable' }));
    },

    /** Each as `findByDigest`, in their order, as fresh as what `ask` reads, but for organizations that are known. */
    async findByDigests(
      ask: Ask,
      wanted: readonly { readonly keyspace: string; readonly digest: Uint8Array }[],
      memory: OrganizationMemory,
    ): Promise<(FoundKey | undefined)[]> {
      const rows = new Map<string, VerifiableRow>();
      for (const keyspace of new Set(wanted.map((one) => one.keyspace))) {
        const digests = wanted.filter((one) => one.keyspace === keyspace).map(({ digest }) => new Binary(digest));
        const filter = { keyspace, digest: { $in: digests } };
        const read = await ask((bounds) =>
          keys.find<VerifiableRow>(filter, { ...bounds, projection: VERIFIABLE }).toArray(),
        );
        for (const row of read) rows.set(digestPlaceOf(keyspace, toHex(row.digest.buffer)), row);
      }
      // After the keys: of an organization that is changed meanwhile the later record is the one that counts.
      const owners = await ownersOf(ask, [...rows.values()], memory);
      return wanted.map(({ keyspace, digest }) => {
        const row = rows.get(digestPlaceOf(keyspace, toHex(digest)));
        return row && toFound(row, owners);
      });
    },

    findOrganization(ref: OrganizationRef, deadline: Deadline): Promise<Organization> {
      return organization(connection.ask(deadline), ref);
    },

    selectKeys(ref: OrganizationRef, selector: KeySelector, deadline: Deadline): Promise<Key[]> {
      // In one moment: read apart, both keys of a rotation under way can look current, and the name ambiguous.
      return connection.atOneMoment(deadline, async (ask) => toKeys(ask, await selectRows(ask, ref, selector)));
    },

    listKeys(ref: OrganizationRef, query: KeyQuery, deadline: Deadline): Promise<Key[]> {
      return connection.atOneMoment(deadline, async (ask) => {
        const rows = await ask((bounds) =>
          keys.find(listed(ref, query), bounds).sort({ sequence: -1 }).limit(query.limit).toArray(),
        );
        return toKeys(ask, rows);
      });
    },

    countExpired(ref: OrganizationRef, at: Date, deadline: Deadline): Promise<number> {
      const filter = { ...toRefFields(ref), current: true, standing: 'usable' as const, expire_time: { $lte: at } };
      return connection.ask(deadline)((bounds) => keys.countDocuments(filter, bounds));
    },

    listEvents(ref: OrganizationRef, query: EventQuery, deadline: Deadline): Promise<EventPage> {
      const { keyId, types, afterSequence, limit } = query;
      const wanted: Filter<EventRow> = {
        ...toRefFields(ref),
        ...(types.length > 0 && { type: { $in: [...types] } }),
        sequence: { $gt: afterSequence },
      };
      // Each by its own index; no event is found by both.
      const filters = keyId === undefined ? [wanted] : OF_KEY.map((field) => ({ ...wanted, [field]: keyId }));
      return connection.atOneMoment(deadline, async (ask) => {
        const found: AuditEvent[] = [];
        for (const filter of filters) {
          const rows = await ask((bounds) => events.find(filter, bounds).sort({ sequence: 1 }).limit(limit).toArray());
          found.push(...rows.map(fromEventRow));
        }
        const { sequence, hash } = await organization(ask, ref);
        const first = found.sort((a, b) => a.sequence - b.sequence).slice(0, limit);
        return { events: first, head: { sequence, hash } };
      });
    },

    /** Organizations in the order of their paths, from the one after that path. */
    async organizationsAfter(path: string, limit: number, deadline: Deadline): Promise<Organization[]> {
      const rows = await connection.ask(deadline)((bounds) =>
        organizations
          .find({ _id: { $gt: path } }, bounds)
          .sort({ _id: 1 })
          .limit(limit)
          .toArray(),
      );
      return rows.map(fromOrganizationRow);
    },

    async keyspacesOfEvents(deadline: Deadline): Promise<string[]> {
      return connection.ask(deadline)((bounds) => events.distinct('keyspace', {}, bounds));
    },

    /**
     * Looks for an organization with events and without a record, after this one of its keyspace and no further than
     * so many records reach.
     * @returns the first of them, if there is one, and from where to look on, unless that was the end
     */
    unrecordedAfter(
      { keyspace, organizationId }: OrganizationRef,
      limit: number,
      deadline: Deadline,
    ): Promise<{ unrecorded?: Organization; next?: OrganizationRef }> {
      const path = organizationPath({ keyspace, organizationId });
      const within = organizationPath({ keyspace, organizationId: '' });
      // The paths of a keyspace end where its slash would be the character behind it.
      const end = `${keyspace}0`;
      // In one moment: between the two reads an organization could be written for the first time.
      return connection.atOneMoment(deadline, async (ask) => {
        const rows = await ask((bounds) =>
          organizations
            .find({ _id: { $gt: path, $lt: end } }, { ...bounds, projection: { _id: 1 } })
            .sort({ _id: 1 })
            .limit(limit)
            .toArray(),
        );
        const recorded = rows.map(({ _id }) => _id.slice(within.length));
        const last = recorded.length < limit ? undefined : recorded.at(-1);
        // An index leads from one record's place to the next: the events of those recorded are not read.
        const others = { $gt: organizationId, ...(last !== undefined && { $lte: last }), $nin: recorded };
        const [event] = await ask((bounds) =>
          events
            .find({ keyspace, organization_id: others }, { ...bounds, projection: { _id: 0, organization_id: 1 } })
            .sort({ organization_id: 1 })
            .limit(1)
            .toArray(),
        );
        if (event) {
          const next = { keyspace, organizationId: event.organization_id };
          return { unrecorded: newOrganization(next), next };
        }
        return last === undefined ? {} : { next: { keyspace, organizationId: last } };
      });
    },

    async keyspaceFacts(deadline: Deadline): Promise<StoredKeyspace[]> {
      const ask = connection.ask(deadline);
      const rows = await ask((bounds) => keyspaces.find({}, bounds).sort({ _id: 1 }).toArray());
      const stored: StoredKeyspace[] = [];
      for (const row of rows) {
        const filter = { keyspace: row._id, standing: { $in: UNREVOKED } };
        // Told which index: by others, which begin with the keyspace too, it would look through all that are revoked.
        const one = { projection: { _id: 1 }, hint: 'standing' };
        const unrevoked = await ask((bounds) => keys.findOne(filter, { ...bounds, ...one }));
        // As a text: that the field is there would be read from each document, and not from the index.
        const given = { keyspace: row._id, plan: { $gt: '' } };
        const plans = await ask((bounds) => organizations.distinct('plan', given, bounds));
        stored.push({
          ...fromKeyspaceRow(row),
          hasUnrevokedKeys: unrevoked !== null,
          plansInUse: plans.filter((plan) => plan !== undefined).sort(),
        });
      }
      return stored;
    },
  };
}

/** Organizations that need not be read. */
export interface OrganizationMemory {
  known(path: string): VerifiableOrganization | undefined;
  /** It was not known, and has been read. */
  noteRead(organization: VerifiableOrganization): void;
}

type Owners = ReadonlyMap<string, VerifiableOrganization>;

function toFound(row: VerifiableRow, owners: Owners): FoundKey {
  const key = fromVerifiableRow(row);
  return { key, organization: owners.get(organizationPath(key)) ?? newOrganization(key) };
}

const OF_KEY = ['key_id', 'previous_key_id'] as const;

const STANDINGS: Record<KeyState, Standing['kind']> = {
  ACTIVE: 'usable',
  EXPIRED: 'usable',
  DISABLED: 'disabled',
  REVOKED: 'revoked',
};

/** The states' condition in the words of `stateOf`: standings for the index, less the usable keys that are not meant. */
function listed(ref: OrganizationRef, { types, states, at, beforeSequence }: KeyQuery): Filter<KeyRow> {
  const expired = { standing: 'usable' as const, expire_time: { $lte: at } };
  const active = { standing: 'usable' as const, expire_time: { $not: { $lte: at } } };
  const unwanted = [...(states.includes('EXPIRED') ? [] : [expired]), ...(states.includes('ACTIVE') ? [] : [active])];
  return {
    ...toRefFields(ref),
    standing: { $in: [...new Set(states.map((state) => STANDINGS[state]))] },
    ...(unwanted.length > 0 && { $nor: unwanted }),
    ...(types.length > 0 && { type: { $in: [...types] } }),
    ...(beforeSequence !== undefined && { sequence: { $lt: beforeSequence } }),
  };
}
