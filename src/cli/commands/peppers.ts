import type { Command } from 'commander';

import { newPepperEntry, parsePepperVersion, PEPPER_VERSION_MAX } from '../../config/peppers.js';
import { Deadline, systemClock } from '../../keys/clock.js';
import { isAnother, type Peppers, versionInUse } from '../../keys/pepper.js';
import { example } from '../command.js';
import { UsageFault } from '../faults.js';
import { printableJson } from '../output/printable.js';
import { toTable } from '../output/table.js';
import { print, type Terminal } from '../terminal.js';
import { toSettings } from './to-settings.js';

interface Options {
  readonly json?: boolean;
}

const COUNT_MS_MAX = 60_000;
const WHILE_SERVED = 'stop it first; where it has a pepper, it also logs the counts when it starts';

const RETIRED =
  'Once a pepper is gone, nothing remembers the keys that were revoked under it: never import a list of digests that is ' +
  'older than that, since a revoked credential in it would come back as a new key.';
const REPEATED =
  'An ImportKeys request that is repeated after the first pepper was added, or the oldest one removed, counts as ' +
  'another request (REQUEST_ID_REUSED): give it a new request id.';

export function addPeppers(program: Command, terminal: Terminal): void {
  const peppers = program
    .command('peppers')
    .summary('count the keys under each pepper, or make one')
    .description(
      "Counts the unrevoked keys that are stored under each version of the pepper, in the service's own store " +
        '(KEYREEVE_MONGODB_URI, KEYREEVE_DATA_DIR), and tells which of KEYREEVE_PEPPERS can go. SQLite belongs to one ' +
        `process: stop the service first.\n\n${RETIRED} ${REPEATED}`,
    )
    .option('--json', 'print the counts as JSON')
    .addHelpText('after', example('keyreeve peppers', 'keyreeve peppers generate 2'))
    .action(async (options: Options) => countKeys(options, terminal));
  peppers
    .command('generate')
    .summary('make a new pepper')
    .description('Prints a new random pepper to standard output, as an entry of KEYREEVE_PEPPERS.')
    .argument('[version]', 'one above every version used before (default: 1)')
    .addHelpText('after', example('(umask 077; keyreeve peppers generate > pepper.txt)'))
    .action(async (version?: string) => print(terminal, newPepperEntry(parseVersion(version ?? '1')).reveal()));
}

/** @throws UsageFault */
function parseVersion(text: string): number {
  const version = parsePepperVersion(text);
  if (version !== undefined) return version;
  throw new UsageFault(`the version must be a whole number from 1 to ${PEPPER_VERSION_MAX}`);
}

async function countKeys({ json }: Options, terminal: Terminal): Promise<void> {
  // The stores take longer to load than most commands to run.
  const { openStore } = await import('./open-store.js');
  const settings = toSettings(terminal.env);
  await using store = await openStore(settings, WHILE_SERVED);
  const counts = await store.countDigests(Deadline.after(COUNT_MS_MAX, systemClock));
  const known = await store.pepperFingerprints(Deadline.after(COUNT_MS_MAX, systemClock));
  const versions = toVersions(counts, settings.peppers, known);
  if (json) {
    await print(
      terminal,
      printableJson({
        versions: versions.map(({ version, keys, state }) => ({ version, unrevoked_keys: keys, state })),
      }),
    );
    return;
  }
  const rows = versions.map(({ version, keys, state }) => [
    version === 0 ? 'none' : String(version),
    String(keys),
    MEANINGS[state],
  ]);
  const table = toTable(['VERSION', 'UNREVOKED KEYS', 'STATE'], rows);
  const canGo = versions.some(({ state }) => state === 'can_go');
  await print(terminal, canGo ? `${table}\n\n${RETIRED}` : table);
}

type VersionState = 'another' | 'in_use' | 'standby' | 'leaving' | 'can_go' | 'missing';

const MEANINGS: Readonly<Record<VersionState, string>> = {
  another: 'another pepper than the one known by that version: the service does not start with it',
  in_use: 'in use: keys are stored under it',
  standby: 'kept ready: keys are not stored under it yet',
  leaving: 'needed: its keys move as they verify',
  can_go: 'can go, once every replica uses the newer one',
  missing: 'missing from KEYREEVE_PEPPERS: the service does not start without it',
};

interface VersionCount {
  readonly version: number;
  readonly keys: number;
  readonly state: VersionState;
}

/** Ascending; without a pepper as version 0, unless all keys have left it. */
function toVersions(
  counts: ReadonlyMap<number, number>,
  peppers: Peppers,
  known: ReadonlyMap<number, string>,
): VersionCount[] {
  const inUse = versionInUse(peppers);
  const configured = new Set([0, ...peppers.map(({ version }) => version)]);
  const others = new Set(peppers.filter((pepper) => isAnother(pepper, known)).map(({ version }) => version));
  return [...new Set([...configured, ...counts.keys()])]
    .sort((a, b) => a - b)
    .map((version) => {
      const keys = counts.get(version) ?? 0;
      const state = stateOf({ version, keys, inUse, isConfigured: configured.has(version) });
      return { version, keys, state: others.has(version) ? 'another' : state };
    })
    .filter(({ version, state }) => version > 0 || state !== 'can_go');
}

function stateOf(of: { version: number; keys: number; inUse: number; isConfigured: boolean }): VersionState {
  if (!of.isConfigured) return 'missing';
  if (of.version === of.inUse) return 'in_use';
  if (of.version > of.inUse) return 'standby';
  return of.keys > 0 ? 'leaving' : 'can_go';
}
