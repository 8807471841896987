/**
 * Ends what a test run leaves behind. It reads from stdin, a JSON line each, which processes and folders live only as
 * long as the run. When stdin closes, its owner is gone, however it went, and so goes what is still listed.
 */
import { rmSync } from 'node:fs';
import process from 'node:process';
import { createInterface } from 'node:readline';

const pids = new Set();
const folders = new Set();

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, pid, folder } = JSON.parse(line);
  if (pid !== undefined) pids[verb](pid);
  if (folder !== undefined) folders[verb](folder);
}

for (const pid of pids) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
