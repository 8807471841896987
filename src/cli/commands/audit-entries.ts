import type { KafkaSettings } from '../../audit/kafka-client.js';
import { readAuditFile } from '../../audit/read-file.js';
import { readTopic } from '../../audit/read-topic.js';
import type { Entry } from '../../audit/verify-chain.js';
import { createLog } from '../../log.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, systemCodeOf, UsageFault } from '../faults.js';

/** An audit file's lines. @throws UsageFault where it cannot be read */
export function fileEntries(path: string): AsyncGenerator<Entry> {
  return orFault(readAuditFile(path), (error) => {
    return new UsageFault(`the audit file cannot be read: ${systemCodeOf(error)}`, { cause: error });
  });
}

/** The topic's messages. @throws CommandFault where it cannot be read */
export function topicEntries(settings: KafkaSettings): AsyncGenerator<Entry> {
  return orFault(readTopic(settings, createLog('silent')), (error) => {
    const why = error instanceof Error ? error.message : 'unknown error';
    return new CommandFault(exitCodes.unavailable, `the audit topic cannot be read: ${why}`, { cause: error });
  });
}

async function* orFault<T>(entries: AsyncIterable<T>, toFault: (error: unknown) => CommandFault): AsyncGenerator<T> {
  try {
    yield* entries;
  } catch (error) {
    throw toFault(error);
  }
}
