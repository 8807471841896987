import { type Change, type Commit, type Load, type Rule, isEmpty, toCommit } from '../../keys/change.js';
import type { Clock } from '../../keys/clock.js';
import { type Refusal, isRefusal } from '../../keys/refusal.js';
import { REQUEST_KEPT_MS } from '../../keys/repeat.js';
import type { Connection } from './connection.js';
import type { Reads } from './read.js';
import { toEventRow, toKeyRow, toOrganizationRow } from './rows.js';

// More than the one that a change adds, so that they cannot pile up, and few enough not to be felt.
const REQUESTS_FORGOTTEN_MAX = 16;

export interface Changed<A> {
  readonly answer: A | Refusal;
  /** Absent: nothing was written. */
  readonly commit?: Commit;
}

/** Loads, decides and commits in one transaction. */
export function prepareChange(
  connection: Connection,
  read: Reads,
  { source, clock }: { source: string; clock: Clock },
) {
  const write = prepareWrite(connection, clock);
  return function change<A>(load: Load, rule: Rule<A>): Changed<A> {
    return connection.transaction(() => {
      const state = read.state(load);
      const decided: Change<A> | Refusal = rule(state);
      if (isRefusal(decided)) return { answer: decided };
      if (isEmpty(decided)) return { answer: decided.answer };
      const commit = toCommit(state, decided, source);
      write(commit);
      return { answer: decided.answer, commit };
    });
  };
}

function prepareWrite(connection: Connection, clock: Clock): (commit: Commit) => void {
  const columnsOf = (table: string) =>
    connection.prepare<{ name: string }>('SELECT name FROM pragma_table_info(:table)').all({ table });
  const into = (table: string) => {
    const columns = columnsOf(table);
    return `INTO ${table} (${columns.map(({ name }) => name).join()}) VALUES (${columns.map(({ name }) => `:${name}`).join()})`;
  };
  const putOrganization = connection.prepare(`INSERT OR REPLACE ${into('organizations')}`);
  const insertKey = connection.prepare(`INSERT ${into('keys')}`);
  const updateKey = connection.prepare(
    `UPDATE keys SET ${columnsOf('keys')
      .map(({ name }) => `${name} = :${name}`)
      .join()}
     WHERE key_id = :key_id AND revision = :revision_before`,
  );
  const insertEvent = connection.prepare(`INSERT ${into('events')}`);
  const insertRequest = connection.prepare(`INSERT ${into('requests')}`);
  const forgetRequests = connection.prepare(
    `DELETE FROM requests WHERE rowid IN (SELECT rowid FROM requests WHERE time < :time ORDER BY time LIMIT :limit)`,
  );

  return function write({ organization, put, events, request }) {
    putOrganization.run(toOrganizationRow(organization));
    for (const { before, after } of put) {
      if (!before) insertKey.run(toKeyRow(after));
      else if (updateKey.run({ ...toKeyRow(after), revision_before: before.revision }) !== 1) {
        throw new Error('a change alters a key that is not stored so');
      }
    }
    for (const event of events) insertEvent.run({ ...toEventRow(event), published: Number(event.published) });
    if (!request) return;
    const nowMs = clock.now().getTime();
    insertRequest.run({
      keyspace: request.keyspace,
      organization_id: request.organizationId,
      caller: request.caller,
      method: request.method,
      request_id: request.requestId,
      hash: request.hash,
      key_ids: JSON.stringify(request.keyIds),
      time: nowMs,
    });
    forgetRequests.run({ time: nowMs - REQUEST_KEPT_MS, limit: REQUESTS_FORGOTTEN_MAX });
  };
}
