/** A change of the database, in the words of those that keep records in memory. */
import type { Follower } from '../../port.js';
import type { FeedEvent } from './feed.js';
import { fromKeyRow, fromOrganizationRow, type KeyRow, type OrganizationRow } from '../rows.js';

/** Of records: what the feed's filter lets through, beside the replica's own documents. */
export const RECORDS = ['keys', 'organizations'] as const;

/** Whatever is not written as the store writes it makes all that is kept doubtful. */
export function tell(follower: Follower, event: FeedEvent): void {
  try {
    if (event.ns?.coll === 'keys') tellOfKey(follower, event);
    else tellOfOrganization(follower, event);
  } catch {
    // A record that nobody could read.
    follower.allChanged();
  }
}

function tellOfKey(follower: Follower, event: FeedEvent): void {
  const { operationType, fullDocument, documentKey } = event;
  if (operationType === 'insert' || operationType === 'replace')
    follower.keyChanged(fromKeyRow(fullDocument as KeyRow));
  else if (updatesOnly(event, DIGEST)) follower.digestMoved(String(documentKey?._id));
  else follower.allChanged();
}

/** A change writes an organization twice: first its revision, which keeps others away, and at last all of it. */
function tellOfOrganization(follower: Follower, event: FeedEvent): void {
  const row = event.fullDocument as OrganizationRow | undefined;
  if (row && event.operationType === 'replace') follower.organizationChanged(fromOrganizationRow(row));
  else if (!(row && isFirstForm(row)) && !updatesOnly(event, HEAD)) follower.allChanged();
}

/** It has the revision already that the whole will have, and nothing else. */
function isFirstForm({ sequence, suspended, plan }: OrganizationRow): boolean {
  return Number(sequence) === 0 && !suspended && plan === undefined;
}

const DIGEST = new Set(['digest', 'digest_algorithm', 'pepper_version']);
const HEAD = new Set(['revision']);

function updatesOnly({ operationType, updateDescription }: FeedEvent, fields: ReadonlySet<string>): boolean {
  if (operationType !== 'update') return false;
  const { updatedFields = {}, removedFields = [] } = updateDescription ?? {};
  return [...Object.keys(updatedFields), ...removedFields].every((field) => fields.has(field));
}
