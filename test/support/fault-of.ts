import { ServiceFault } from '../../src/client/client.js';

/**
 * What a call that does not get through ends with. One whose last try the deadline cut off is made again: that try does
 * not say why there was no answer.
 */
export async function faultOf(make: () => Promise<unknown>): Promise<unknown> {
  for (;;) {
    const fault: unknown = await make().then(
      (answer) => new Error(`there was an answer: ${JSON.stringify(answer)}`),
      (error: unknown) => error,
    );
    if (!(fault instanceof ServiceFault) || fault.code !== 'DEADLINE_EXCEEDED') return fault;
  }
}
