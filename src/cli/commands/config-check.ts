import type { Command } from 'commander';

import { type Config, loadConfig } from '../../config/load.js';
import { formatProblem } from '../../config/problems.js';
import type { Environment } from '../../config/settings.js';
import { counted } from '../../counted.js';
import { example } from '../command.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { print, remark, type Terminal } from '../terminal.js';

interface Options {
  readonly keyspaces?: string;
  readonly callers?: string;
}

export function addConfigCheck(config: Command, terminal: Terminal, end: (code: ExitCode) => void): void {
  config
    .command('check')
    .summary('check settings and files without starting')
    .description(
      'Checks the settings and the files that they name as the start of the service does, and tells every problem, a ' +
        'line each: exit code 1 if there is one. Whether stored keys agree with the keyspaces file, the start alone can say.',
    )
    .option('--keyspaces <file>', 'the keyspaces file (default: KEYREEVE_KEYSPACES)')
    .option('--callers <file>', 'the callers file (default: KEYREEVE_CALLERS)')
    .addHelpText('after', example('keyreeve config check --keyspaces config/keyspaces.yaml'))
    .action(async (options: Options) => end(await check(options, terminal)));
}

async function check({ keyspaces, callers }: Options, terminal: Terminal): Promise<ExitCode> {
  const env: Environment = {
    ...terminal.env,
    ...(keyspaces !== undefined && { KEYREEVE_KEYSPACES: keyspaces }),
    ...(callers !== undefined && { KEYREEVE_CALLERS: callers }),
  };
  const config = await loadConfig(env);
  if (Array.isArray(config)) {
    for (const problem of config) remark(terminal, formatProblem(problem));
    return exitCodes.no;
  }
  for (const warning of config.settings.warnings) remark(terminal, `warning: ${formatProblem(warning)}`);
  await print(terminal, describe(config));
  return exitCodes.ok;
}

function describe({ keyspaces, exampleKeyspaces, callers }: Config): string {
  const known = callers
    ? counted(callers.size, 'caller')
    : 'no callers file, so everyone who connects is the caller local';
  const examples = exampleKeyspaces === undefined ? '' : ' (the examples, as there is no config/keyspaces.yaml here)';
  return `ok: ${counted(keyspaces.size, 'keyspace')}${examples}, ${known}`;
}
