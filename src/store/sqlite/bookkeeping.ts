/** What is kept beside keys and events: writes that make no event and move neither revision nor etag. */
import { type BudgetAsk, type BudgetBlock, type BudgetWindow, takeBudget } from '../../keys/budget.js';
import type { Clock } from '../../keys/clock.js';
import type { Digest } from '../../keys/digest.js';
import type { Connection } from './connection.js';

// Far longer than any window lasts: one that is forgotten must have ended.
const WINDOW_KEPT_MS = 24 * 60 * 60 * 1000;
// More than the one that a taking adds, so that they cannot pile up, and few enough not to be felt.
const WINDOWS_FORGOTTEN_MAX = 16;

export function prepareBookkeeping(connection: Connection, clock: Clock) {
  // All in one call, which else takes longer than the work. Without WHERE the parser would take ON for a join's.
  const recordUses = connection.prepare(
    `INSERT INTO last_uses (key_id, time) SELECT value ->> 0, value ->> 1 FROM json_each(:uses) WHERE true
     ON CONFLICT DO UPDATE SET time = excluded.time WHERE excluded.time > last_uses.time`,
  );
  const moveDigest = connection.prepare(
    `UPDATE keys SET digest = :digest, digest_algorithm = :algorithm, pepper_version = :version
     WHERE key_id = :key_id
       AND digest = :from_digest AND digest_algorithm = :from_algorithm AND pepper_version = :from_version`,
  );
  const digestCounts = connection.prepare<{ pepper_version: number; count: number }>(
    'SELECT pepper_version, count(*) AS count FROM keys WHERE revoke_time IS NULL GROUP BY pepper_version',
  );
  const anyDigest = connection.prepare<{ found: number }>(
    'SELECT 1 AS found FROM keys WHERE pepper_version = :version AND revoke_time IS NULL LIMIT 1',
  );

  const windowRow = connection.prepare<{ opened_at: number; taken: number }>(
    'SELECT opened_at, taken FROM budgets WHERE lineage_id = :lineage_id',
  );
  const putWindow = connection.prepare(
    'INSERT OR REPLACE INTO budgets (lineage_id, opened_at, taken) VALUES (:lineage_id, :opened_at, :taken)',
  );
  const forgetWindows = connection.prepare(
    `DELETE FROM budgets WHERE lineage_id IN (
       SELECT lineage_id FROM budgets WHERE opened_at < :time ORDER BY opened_at LIMIT :limit
     )`,
  );

  const pepperRows = connection.prepare<PepperRow>('SELECT version, fingerprint FROM peppers ORDER BY version');
  const pepperRow = connection.prepare<PepperRow>('SELECT version, fingerprint FROM peppers WHERE version = :version');
  const putPepper = connection.prepare('INSERT INTO peppers (version, fingerprint) VALUES (:version, :fingerprint)');

  function windowOf(lineageId: string): BudgetWindow | undefined {
    const row = windowRow.get({ lineage_id: lineageId });
    return row && { openedAt: new Date(row.opened_at), taken: row.taken };
  }

  return {
    recordUses(uses: ReadonlyMap<string, Date>): void {
      const rows = Array.from(uses, ([keyId, time]) => [keyId, time.getTime()]);
      recordUses.run({ uses: JSON.stringify(rows) });
    },

    /** Whether the key had the form that it moves from. */
    moveDigest(keyId: string, from: Digest, to: Digest): boolean {
      const moved = moveDigest.run({
        key_id: keyId,
        from_digest: from.bytes,
        from_algorithm: from.algorithm,
        from_version: from.pepperVersion,
        digest: to.bytes,
        algorithm: to.algorithm,
        version: to.pepperVersion,
      });
      return moved > 0;
    },

    countDigests(): Map<number, number> {
      return new Map(digestCounts.all({}).map(({ pepper_version, count }) => [pepper_version, count]));
    },

    hasDigests(version: number): boolean {
      return anyDigest.get({ version }) !== undefined;
    },

    takeBudget(ask: BudgetAsk): BudgetBlock {
      return connection.transaction(() => {
        const now = clock.now();
        const stored = windowOf(ask.lineageId);
        const { window, block } = takeBudget(stored, ask, now);
        // Where nothing is left to take, nothing is written.
        if (stored && isSame(stored, window)) return block;
        putWindow.run({ lineage_id: ask.lineageId, opened_at: window.openedAt.getTime(), taken: window.taken });
        forgetWindows.run({ time: now.getTime() - WINDOW_KEPT_MS, limit: WINDOWS_FORGOTTEN_MAX });
        return block;
      });
    },

    readBudget(ask: Omit<BudgetAsk, 'want'>): BudgetBlock {
      return takeBudget(windowOf(ask.lineageId), { ...ask, want: 0 }, clock.now()).block;
    },

    pepperFingerprints(): Map<number, string> {
      return new Map(pepperRows.all({}).map(({ version, fingerprint }) => [version, fingerprint]));
    },

    rememberPeppers(fingerprints: ReadonlyMap<number, string>): void {
      connection.transaction(() => {
        for (const [version, fingerprint] of fingerprints) {
          const stored = pepperRow.get({ version });
          if (!stored) putPepper.run({ version, fingerprint });
          else if (stored.fingerprint !== fingerprint) {
            throw new Error(
              `the pepper of version ${version} is another than the one that was in use under this version`,
            );
          }
        }
      });
    },
  };
}

function isSame(a: BudgetWindow, b: BudgetWindow): boolean {
  return a.openedAt.getTime() === b.openedAt.getTime() && a.taken === b.taken;
}

interface PepperRow {
  version: number;
  fingerprint: string;
}
