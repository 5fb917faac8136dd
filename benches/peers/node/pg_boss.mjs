// pg-boss: two loops that fetch 500 jobs and complete them together, or its own worker with batches of 500.

import { PgBoss } from 'pg-boss';
import { batches, perform } from './runner.mjs';

const QUEUE = 'debits';
const BATCH_SIZE = 500;
const LOOPS = 2;

async function start(connectionString) {
  const boss = new PgBoss({ connectionString });
  boss.on('error', (error) => process.stderr.write(`pg-boss: ${error}\n`));
  return boss.start();
}

async function enqueue({ database_url }) {
  const boss = await start(database_url);
  await boss.createQueue(QUEUE);
  for (const numbers of batches(5_000)) {
    await boss.insert(QUEUE, numbers.map((number) => ({ data: { number } })));
  }
  await boss.stop();
}

async function work({ mode, database_url }, debit) {
  const boss = await start(database_url);
  const debitAll = (jobs) => Promise.all(jobs.map((job) => debit(job.data.number)));
  if (mode === 'work-500') {
    await boss.work(QUEUE, { batchSize: BATCH_SIZE }, async (jobs) => {
      await debitAll(jobs);
    });
    return;
  }
  for (let loop = 0; loop < LOOPS; loop += 1) {
    fetchToEnd(boss, debitAll).catch((error) => {
      process.stderr.write(`pg-boss: ${error}\n`);
      process.exit(1);
    });
  }
}

async function fetchToEnd(boss, debitAll) {
  for (;;) {
    const jobs = await boss.fetch(QUEUE, { batchSize: BATCH_SIZE });
    if (jobs.length === 0) {
      return;
    }
    await debitAll(jobs);
    await boss.complete(QUEUE, jobs.map((job) => job.id));
  }
}

await perform({ enqueue, work });
