import { type Command, Option } from 'commander';

import { anyText, repeatedOption } from '../arguments.js';
import { example } from '../command.js';
import type { ExitCode } from '../exit-codes.js';
import type { Terminal } from '../terminal.js';
import type { ReconcileOptions } from './reconcile-store.js';

export function addReconcile(program: Command, terminal: Terminal, end: (code: ExitCode) => void): void {
  program
    .command('reconcile')
    .summary('after a backup was put back: find what the store lost, and revoke again what was revoked')
    .description(
      'Compares the store with the audit topic or file: exit code 1 if events are missing from the store, as after a ' +
        'backup was put back, or if something that may be one cannot be read. With --apply they are put back into it, and keys that were revoked, switched off, ended ' +
        'or narrowed since then are so again; nothing is given back. Both are those of the ' +
        "service's own settings: KEYREEVE_KAFKA_BROKERS, KEYREEVE_DATA_DIR, … Stop the service first.",
    )
    .addOption(
      repeatedOption(
        '--file <path>',
        'read this audit file; of a file that was rotated give every part, the oldest first',
        anyText,
      ).conflicts(['topic']),
    )
    .addOption(new Option('--topic', 'read the audit topic (default: what the service publishes to)'))
    .option('--apply', 'change the store')
    .option('--json', 'print the outcome as JSON')
    .addHelpText('after', example('keyreeve reconcile', 'keyreeve reconcile --apply'))
    .action(async (options: ReconcileOptions) => {
      // The stores and Kafka take longer to load than most commands to run.
      const { reconcileStore } = await import('./reconcile-store.js');
      end(await reconcileStore(options, terminal));
    });
}
