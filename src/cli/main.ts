#!/usr/bin/env node
import process from 'node:process';

import { runCommand } from './program.js';

const LINGER_MS = 200;

for (const stream of [process.stdout, process.stderr]) {
  // Each write learns of its own failure; without a listener the same failure would end the process with a stack.
  stream.on('error', () => undefined);
}
// Whoever runs the command can do nothing about them. There is one whenever grpc-js asks an IP address for TLS.
process.noDeprecation = true;
const { stdin, stdout, stderr, env } = process;
process.exitCode = await runCommand(process.argv.slice(2), { stdin, stdout, stderr, env });
// The command has done all that it promised. A connection that still says good-bye to a server that hangs, as MongoDB's
// driver does for seconds, must not keep the process.
setTimeout(() => process.exit(), LINGER_MS).unref();
