import { Long } from 'mongodb';

import {
  type Change,
  type Commit,
  type Load,
  type OrganizationState,
  type PutKey,
  type Rule,
  isEmpty,
  toCommit,
} from '../../keys/change.js';
import type { Clock, Deadline } from '../../keys/clock.js';
import type { Key } from '../../keys/key.js';
import { type Organization, type OrganizationRef, newOrganization, organizationPath } from '../../keys/organization.js';
import { type Refusal, isRefusal } from '../../keys/refusal.js';
import type { Connection } from './connection.js';
import { Lanes } from './lanes.js';
import type { Reads } from './read.js';
import { fromOrganizationRow, toEventRow, toKeyRow, toOrganizationRow, toRequestRow } from './rows.js';
import type { Collections } from './schema.js';
import { type Transaction, untilCommitted } from './transaction.js';
import { Overtaken, isDuplicateKey } from './trouble.js';

export interface Changed<A> {
  readonly answer: A | Refusal;
  readonly hasEvents: boolean;
}

/**
 * Loads, decides and commits in one transaction; tries again, on what is stored then, until the deadline. The
 * organization's head is written first, so that of two replicas' changes one is turned back at once and not at its end.
 */
export function makeChange(
  connection: Connection,
  collections: Collections,
  reads: Reads,
  { source, clock }: { source: string; clock: Clock },
) {
  const { keys, organizations, events, requests } = collections;
  const lanes = new Lanes();

  return function change<A>(load: Load, rule: Rule<A>, deadline: Deadline): Promise<Changed<A>> {
    return lanes.run(organizationPath(load.organization), deadline, () =>
      untilCommitted(connection, deadline, (transaction) => tryOnce(transaction, load, rule, deadline)),
    );
  };

  async function tryOnce<A>(
    transaction: Transaction,
    load: Load,
    rule: Rule<A>,
    deadline: Deadline,
  ): Promise<Changed<A>> {
    const organization = await takeHead(transaction, load.organization);
    const state: OrganizationState = { organization, ...(await reads.loaded(transaction.ask, load)) };
    const decided: Change<A> | Refusal = rule(state);
    if (isRefusal(decided) || isEmpty(decided)) {
      await transaction.abort();
      await confirm(organization, deadline);
      return { answer: isRefusal(decided) ? decided : decided.answer, hasEvents: false };
    }
    await write(transaction, toCommit(state, decided, source), load, state);
    await transaction.commit();
    return { answer: decided.answer, hasEvents: decided.events.length > 0 };
  }

  /** Writes the head, which keeps all others from changing the organization, and answers it as it was. */
  async function takeHead({ ask }: Transaction, ref: OrganizationRef): Promise<Organization> {
    const { _id, revision, ...unwritten } = toOrganizationRow(newOrganization(ref));
    try {
      const before = await ask((bounds) =>
        organizations.findOneAndUpdate(
          { _id },
          { $inc: { revision: Long.ONE }, $setOnInsert: unwritten },
          { ...bounds, upsert: true, returnDocument: 'before' },
        ),
      );
      return before ? fromOrganizationRow(before) : newOrganization(ref);
    } catch (error) {
      // Two replicas write a new organization at once.
      if (isDuplicateKey(error)) throw new Overtaken('another change made the organization', { cause: error });
      throw error;
    }
  }

  async function write(transaction: Transaction, commit: Commit, load: Load, state: OrganizationState): Promise<void> {
    const { ask } = transaction;
    for (const one of commit.put) {
      try {
        await put(transaction, one);
      } catch (error) {
        if (!isTakenMeanwhile(error, one.after, load, state)) throw error;
        throw new Overtaken('another change took the digest', { cause: error });
      }
    }
    for (const event of commit.events) await ask((bounds) => events.insertOne(toEventRow(event), bounds));
    const { request } = commit;
    if (request) await ask((bounds) => requests.insertOne(toRequestRow(request, clock.now()), bounds));
    const head = toOrganizationRow(commit.organization);
    await ask((bounds) => organizations.replaceOne({ _id: head._id }, head, bounds));
  }

  async function put({ ask }: Transaction, { before, after }: PutKey): Promise<void> {
    const row = toKeyRow(after);
    if (!before) {
      await ask((bounds) => keys.insertOne(row, bounds));
      return;
    }
    const asStored = { _id: row._id, revision: Long.fromNumber(before.revision) };
    const { matchedCount } = await ask((bounds) => keys.replaceOne(asStored, row, bounds));
    if (matchedCount !== 1) throw new Error('a change alters a key that is not stored so');
  }

  /**
   * Proves that what was decided on is no less durable than a change: a transaction sees what a primary has written and
   * may lose, and the answer to a repeated revocation must not rest on that. The linearizable read returns only once all
   * that was written before is acknowledged by a majority.
   * @throws Overtaken if the organization has changed since, or changed back
   */
  async function confirm(seen: Organization, deadline: Deadline): Promise<void> {
    const stored = await connection.ask(deadline)((bounds) =>
      organizations.findOne(
        { _id: organizationPath(seen) },
        { ...bounds, readConcern: 'linearizable', projection: { revision: 1 } },
      ),
    );
    if (Number(stored?.revision ?? 0) !== seen.revision) throw new Overtaken('the organization has changed meanwhile');
  }
}

/** Whether the key's digest is taken, and the rule, which asked who has it, was told that nobody does. */
function isTakenMeanwhile(error: unknown, { digest }: Key, { digests = [] }: Load, state: OrganizationState): boolean {
  const wasFree = !state.digestHolder && digests.some((asked) => Buffer.compare(asked, digest.bytes) === 0);
  return wasFree && isDuplicateKey(error, 'digest');
}
