import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';

const MEMORY = '/dev/shm';
const BYTES_MIN = 4 * 1024 ** 3;

/**
 * Where servers put their data: in memory where there is room, since they wait for the disk at each change. What a test
 * does to them, SIGKILL at most, loses nothing there either.
 */
export function serverFolder(): string {
  try {
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= BYTES_MIN ? MEMORY : tmpdir();
  } catch {
    return tmpdir();
  }
}
