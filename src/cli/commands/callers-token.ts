import type { Command } from 'commander';

import { newCallerToken, ROLES, type Role } from '../../config/callers.js';
import { formatProblem } from '../../config/problems.js';
import { anyText, oneOf, repeatedOption } from '../arguments.js';
import { example } from '../command.js';
import { UsageFault } from '../faults.js';
import { printableJson } from '../output/printable.js';
import { print, remark, type Terminal } from '../terminal.js';

interface Options {
  readonly role: readonly Role[];
  readonly keyspace?: readonly string[];
  readonly organization?: readonly string[];
  readonly mayAssertActor?: boolean;
  readonly permission?: readonly string[];
  readonly json?: boolean;
}

export function addCallersToken(callers: Command, terminal: Terminal): void {
  callers
    .command('token')
    .summary('make a token for a service that is to call')
    .description(
      'Makes a token for a service that is to call, and the line that lets it in. The token goes to standard output, ' +
        'this once; the line for the callers file, which holds a digest alone, to standard error.',
    )
    .argument('<name>', "the caller's name, which audit events carry")
    .addOption(repeatedOption('--role <role>', ROLES.join(', '), oneOf(ROLES)).makeOptionMandatory())
    .addOption(repeatedOption('--keyspace <name>', "one that it may use (default: '*', all)", anyText))
    .addOption(repeatedOption('--organization <id>', "one that it may use (default: '*', all)", anyText))
    .option('--may-assert-actor', 'it states, and vouches for, the actor on whose behalf it acts')
    .addOption(repeatedOption('--permission <name>', 'one that it has when it is the actor itself', anyText))
    .option('--json', 'print the token and the line as JSON')
    .addHelpText(
      'after',
      example(
        "(umask 077; keyreeve callers token gateway --role verifier --keyspace metlo --organization '*' > token.txt)",
      ),
    )
    .action(async (name: string, options: Options) => makeToken(name, options, terminal));
}

async function makeToken(name: string, options: Options, terminal: Terminal): Promise<void> {
  const { role: roles, keyspace: keyspaces = ['*'], organization: organizations = ['*'] } = options;
  const made = newCallerToken({
    name,
    roles,
    keyspaces,
    organizations,
    mayAssertActor: options.mayAssertActor ?? false,
    permissions: options.permission ?? [],
  });
  if (Array.isArray(made)) throw new UsageFault(made.map(formatProblem).join('; '));
  const { token, tokenSha256, line } = made;
  if (options.json) {
    await print(terminal, printableJson({ name, token: token.reveal(), token_sha256: tokenSha256, line }));
    return;
  }
  await print(terminal, token.reveal());
  remark(terminal, `This is the only time that the token is shown. The line for the callers file, under "callers:":`);
  remark(terminal, line.trimEnd());
}
