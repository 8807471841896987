import { CommanderError } from 'commander';

import { StoreFault } from '../store/faults.js';
import { readVersion } from '../version.js';
import { example, SafeCommand } from './command.js';
import { addAuditList } from './commands/audit-list.js';
import { addAuditVerify } from './commands/audit-verify.js';
import { addCallersToken } from './commands/callers-token.js';
import { addConfigCheck } from './commands/config-check.js';
import { addHealth } from './commands/health.js';
import { addKeysCreate } from './commands/keys-create.js';
import { addKeysGet } from './commands/keys-get.js';
import { addKeysImport } from './commands/keys-import.js';
import { addKeysList } from './commands/keys-list.js';
import { addKeysRevoke } from './commands/keys-revoke.js';
import { addKeysRotate } from './commands/keys-rotate.js';
import { addKeysUpdate } from './commands/keys-update.js';
import { addKeysVerify } from './commands/keys-verify.js';
import { addOrganizationsGet } from './commands/organizations-get.js';
import { addOrganizationsUpdate } from './commands/organizations-update.js';
import { addPeppers } from './commands/peppers.js';
import { addReconcile } from './commands/reconcile.js';
import { addServe } from './commands/serve.js';
import { explainEnvironment } from './environment.js';
import { type ExitCode, exitCodes, explainExitCodes } from './exit-codes.js';
import { CommandFault } from './faults.js';
import { remark, type Terminal } from './terminal.js';

/**
 * Runs one command. What goes wrong is told on standard error, in a line.
 * @param args without the program's own name
 */
export async function runCommand(args: readonly string[], terminal: Terminal): Promise<ExitCode> {
  let exitCode: ExitCode = exitCodes.ok;
  try {
    await createProgram(terminal, (code) => (exitCode = code)).parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    return report(error, terminal);
  }
}

/** @param end takes the exit code of a command that can end well in more than one way */
export function createProgram(terminal: Terminal, end: (code: ExitCode) => void): SafeCommand {
  const program = new SafeCommand('keyreeve');
  program
    .description('API keys as a service: issue, list, verify and revoke them, and check what was recorded.')
    .version(readVersion(), '--version', 'print the version')
    .configureOutput({
      writeOut: (text) => void terminal.stdout.write(text),
      writeErr: (text) => void terminal.stderr.write(text),
    })
    .exitOverride()
    .addHelpText('after', ['', explainEnvironment(), '', explainExitCodes(), example('keyreeve serve')].join('\n'));

  addServe(program, terminal);
  addHealth(program, terminal, end);

  const keys = program.command('keys').description('issue, show, list, change, rotate, revoke, import and verify keys');
  addKeysCreate(keys, terminal);
  addKeysGet(keys, terminal);
  addKeysList(keys, terminal);
  addKeysUpdate(keys, terminal);
  addKeysRotate(keys, terminal);
  addKeysRevoke(keys, terminal);
  addKeysImport(keys, terminal, end);
  addKeysVerify(keys, terminal, end);

  const organizations = program.command('organizations').description('show, change and suspend the owners of keys');
  addOrganizationsGet(organizations, terminal);
  addOrganizationsUpdate(organizations, terminal);

  const audit = program.command('audit').description('list what was recorded, and check that nothing is missing');
  addAuditList(audit, terminal);
  addAuditVerify(audit, terminal, end);
  addReconcile(program, terminal, end);

  const config = program.command('config').description('check what the service is configured with');
  addConfigCheck(config, terminal, end);

  const callers = program.command('callers').description('let services call');
  addCallersToken(callers, terminal);

  addPeppers(program, terminal);
  return program;
}

function report(error: unknown, terminal: Terminal): ExitCode {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return exitCodes.ok;
    // The help that answers a group without a command has been printed; its "error" says no more.
    if (error.code !== 'commander.help') remark(terminal, `keyreeve: ${error.message}`);
    return exitCodes.usage;
  }
  if (error instanceof CommandFault) {
    if (error.exitCode !== exitCodes.outputClosed) remark(terminal, `keyreeve: ${error.message}`);
    return error.exitCode;
  }
  if (error instanceof StoreFault) {
    remark(terminal, `keyreeve: ${error.message}`);
    return exitCodes.unavailable;
  }
  remark(
    terminal,
    `keyreeve: a fault of this command: ${error instanceof Error ? (error.stack ?? error.message) : ''}`,
  );
  return exitCodes.internal;
}
