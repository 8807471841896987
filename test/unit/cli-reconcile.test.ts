/** What `keyreeve reconcile` says of an audit file, and how it ends. */
import { cp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { AUDIT_FILE } from '../../src/audit/file-sink.js';
import { exitCodes } from '../../src/cli/exit-codes.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { edit, makeChain } from '../support/audit.js';
import { acme } from '../support/domain.js';
import { type Run, runCli } from '../support/cli.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { openStoreAt } from '../support/open-store.js';
import { create, eventsOf, revoke } from '../support/store-calls.js';

let folder: GuardedFolder;
/** A key is created, and revoked; another is, too. The backup has the first of them. */
let events: AuditEvent[];
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cli-reconcile-'));
  const [lived, backup] = [join(folder.path, 'lived'), join(folder.path, 'backup')];
  let store = await openStoreAt({ engine: 'sqlite', dataDir: lived });
  const key = await create(store, { ask: { name: 'first' } });
  await store[Symbol.asyncDispose]();
  await cp(lived, backup, { recursive: true });
  store = await openStoreAt({ engine: 'sqlite', dataDir: lived });
  await revoke(store, key);
  await revoke(store, await create(store, { ask: { name: 'second' } }));
  events = await eventsOf(store);
  await store[Symbol.asyncDispose]();
});
afterAll(() => folder[Symbol.asyncDispose]());

describe('reconcile', () => {
  test('says that the store has them all where that is so, and counts what is of other installations apart', async () => {
    const foreign = makeChain(2, acme, 'urn:keyreeve:elsewhere');
    const run = await reconcile('lived', [...events, ...foreign]);
    expect(run.exitCode).toBe(exitCodes.ok);
    expect(run.stdout).toContain('4 events read: the store has them all.');
    expect(run.stdout).toContain('2 events of other installations passed over.');
  });

  test('does not say that the store has them all where it compared none', async () => {
    const { exitCode, stdout } = await reconcile('lived', makeChain(3, acme, 'urn:keyreeve:elsewhere'));
    expect(exitCode).toBe(exitCodes.no);
    expect(stdout).toContain('0 events read: nothing was compared with the store.');
    expect(stdout).toContain('3 events of other installations passed over.');
    expect(stdout).not.toContain('has them all');
  });

  test.each([[[]], [['--apply']]])(
    'names an event that was altered, and does not put it back (%s)',
    async (options) => {
      const altered = edit(events[1] ?? expect.fail('no event'), '"OTHER"', '"UNUSED"');
      const { exitCode, stdout } = await reconcile('backup', [...events.slice(0, 1), altered], ...options);
      expect(exitCode).toBe(exitCodes.no);
      expect(stdout).toMatch(/^2 events read: the store lack(s|ed) 1 event of 1 organization\.$/m);
      expect(stdout).toContain('shop/acme: 1 event cannot be put back: event 2 was altered (line 2): its content');
      expect(stdout).toContain('Left as they are: 1 organization');
    },
  );

  test.each([[[]], [['--apply']]])(
    'says which line could not be read, and does not end well then (%s)',
    async (options) => {
      const junk = { ...(events[1] ?? expect.fail('no event')), cloudEvent: 'junk' };
      const { exitCode, stdout } = await reconcile('backup', [...events.slice(0, 1), junk], ...options);
      expect(exitCode).toBe(exitCodes.no);
      expect(stdout).toContain('1 event read: the store has these.');
      expect(stdout).toContain('1 entry could not be read (line 2)');
      expect(stdout).not.toContain('has them all');
    },
  );

  test('says of a key that is gone whether it was revoked, so that nobody imports it again', async () => {
    const run = await reconcile('backup', events);
    expect(run.stdout).toMatch(
      /gone for good, and revoked by event 4: do not import it again: key_\w+ \("second", .*\), made by event 3/,
    );
    const json = await reconcile('backup', events, '--json');
    const [organization] = (JSON.parse(json.stdout) as { organizations: { gone: unknown[] }[] }).organizations;
    expect(organization?.gone).toMatchObject([
      { name: 'second', revoked: { reason: 'OTHER', event: events[3]?.eventId } },
    ]);
    const applied = await reconcile('backup', events.slice(0, 3), '--apply');
    expect(applied).toMatchObject({ exitCode: exitCodes.ok });
    expect(applied.stdout).toMatch(/gone for good: key_\w+ \("second", .*\), made by event 3; it is denied/);
  });
});

/** Of a copy of this store, and an audit file with these events. */
async function reconcile(store: string, held: readonly AuditEvent[], ...options: string[]): Promise<Run> {
  await using copy = await makeGuardedFolder(join(folder.path, 'copy-'));
  await cp(join(folder.path, store), copy.path, { recursive: true });
  await writeFile(join(copy.path, AUDIT_FILE), held.map(({ cloudEvent }) => `${cloudEvent}\n`).join(''));
  const env = { KEYREEVE_DATA_DIR: copy.path, KEYREEVE_INSTALLATION: 'test' };
  return await runCli(['reconcile', ...options], { env });
}
