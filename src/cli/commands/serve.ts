import type { Command } from 'commander';

import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, UsageFault } from '../faults.js';
import type { Terminal } from '../terminal.js';

export function addServe(program: Command, { env }: Terminal): void {
  program
    .command('serve')
    .summary('run the service')
    .description(
      'Runs the service until SIGTERM or Ctrl-C. Its settings are environment variables; keyreeve config check tells ' +
        'what is wrong with them.',
    )
    .addHelpText('after', example('KEYREEVE_DATA_DIR=./data keyreeve serve'))
    .action(async () => {
      // Loaded here alone: no other command needs the whole service.
      const { CannotGoOn, CannotStart, run } = await import('../../main.js');
      try {
        await run(env);
      } catch (error) {
        if (error instanceof CannotGoOn) {
          throw new CommandFault(exitCodes.unavailable, `cannot go on: ${error.message}`, { cause: error });
        }
        if (!(error instanceof CannotStart)) throw error;
        // A line for each problem, so that they can be counted and searched.
        const lines = error.problems.map((problem) => `cannot start: ${problem}`);
        throw new UsageFault(lines.join('\nkeyreeve: '), { cause: error });
      }
    });
}
