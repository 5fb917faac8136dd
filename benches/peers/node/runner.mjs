// What the runners for Node share: the assignment, the debit that is every job's work, and what is said to `peers`.
// The same as src/bin/rust_runner/main.rs.

import { createInterface } from 'node:readline';
import { Pool } from 'undici';

const assignment = JSON.parse(process.argv[2]);

/// Debits, and keeps count of them.
class Debits {
  #pool;
  #path;
  #headers;
  #isDebited = new Uint8Array(assignment.jobs);
  calls = 0;
  distinct = 0;

  constructor() {
    const endpoint = new URL(assignment.endpoint);
    this.#pool = new Pool(endpoint.origin, { connections: assignment.in_flight });
    this.#path = endpoint.pathname;
    this.#headers = { authorization: `Bearer ${assignment.token}`, 'content-type': 'application/json' };
  }

  async debit(number) {
    this.calls += 1;
    const body = JSON.stringify({
      serviceId: assignment.service_id,
      paymentProfileId: assignment.profile_id,
      amount: 4900,
      currency: 'PLN',
      orderId: `${assignment.order_prefix}-${number}`,
    });
    const response = await this.#pool.request({ path: this.#path, method: 'POST', headers: this.#headers, body });
    if (response.statusCode !== 200) {
      throw new Error(`the debit ${number} was refused: ${response.statusCode}`);
    }
    await response.body.dump();
    if (this.#isDebited[number] === 0) {
      this.#isDebited[number] = 1;
      this.distinct += 1;
      if (this.distinct === assignment.jobs) {
        say('called');
      }
    }
  }
}

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

/// Does what the assignment asks: puts the jobs into the queue, or works on them from the word on standard input until
/// that ends.
export async function perform({ enqueue, work }) {
  if (assignment.step === 'enqueue') {
    await enqueue(assignment);
    process.exit(0);
  }
  const debits = new Debits();
  const words = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  say('ready');
  await words.next();
  await work(assignment, (number) => debits.debit(number));
  await words.next();
  say({ counts: { calls: debits.calls, distinct: debits.distinct } });
  process.exit(0);
}

/// The numbers of the jobs, so many at a time.
export function* batches(size) {
  for (let start = 0; start < assignment.jobs; start += size) {
    const length = Math.min(size, assignment.jobs - start);
    yield Array.from({ length }, (_, index) => start + index);
  }
}
