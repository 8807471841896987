import { Command, CommanderError, type ErrorOptions } from 'commander';

import { exitCodes } from './exit-codes.js';

/** A command whose complaints never repeat a value of the command line: it may be a secret put in the wrong place. */
export class SafeCommand extends Command {
  #credentialsFrom: string | undefined;

  constructor(name?: string) {
    super(name);
    this.helpCommand(false);
  }

  override createCommand(name?: string): SafeCommand {
    return new SafeCommand(name);
  }

  /** @param source where this command reads credentials: told to whom puts one on the command line */
  readsCredentialsFrom(source: string): this {
    this.#credentialsFrom = source;
    return this;
  }

  override error(message: string, options?: ErrorOptions): never {
    const code = options?.code ?? 'commander.error';
    throw new CommanderError(exitCodes.usage, code, `${this.#explain(message, code)}; see ${this.#path()} --help`);
  }

  #explain(message: string, code: string): string {
    if (code !== 'commander.excessArguments' || this.#credentialsFrom === undefined)
      return withoutValues(message, code);
    return `too many arguments; a credential is read from ${this.#credentialsFrom}, never from the command line`;
  }

  #path(): string {
    return this.parent instanceof SafeCommand ? `${this.parent.#path()} ${this.name()}` : this.name();
  }
}

/** An example for the end of the help. */
export function example(...lines: string[]): string {
  return ['', lines.length > 1 ? 'Examples:' : 'Example:', ...lines.map((line) => `  $ ${line}`)].join('\n');
}

function withoutValues(message: string, code: string): string {
  const line = message.replace(/^error: /, '').replace(/\s+/g, ' ');
  if (code === 'commander.unknownOption' || code === 'commander.unknownCommand') {
    const looksLikeAName = /^unknown \w+ '[a-z-]{1,20}[='].*/.test(line);
    return line.replace(looksLikeAName ? /=.*'/ : / '.*$/, looksLikeAName ? "'" : '');
  }
  return code === 'commander.excessArguments' ? 'too many arguments' : line;
}
