// The main job by Connect-ES in Node.js.
//
// usage: node main.mjs <protocol> <base URL> <customer> <operator key>

import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { connectClient } from '../connect/connect.mjs';
import { mainJob } from '../connect/job.mjs';

const [protocol, baseUrl, customer, operatorKey] = process.argv.slice(2);
const transports = {
  connect: () => createConnectTransport({ baseUrl, httpVersion: '2', useHttpGet: true }),
  'connect-1.1': () => createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: true }),
  grpc: () => createGrpcTransport({ baseUrl }),
  'grpc-web': () => createGrpcWebTransport({ baseUrl, httpVersion: '1.1' }),
};
await mainJob(connectClient(transports[protocol]()), customer, operatorKey);
// Idle connections would keep it alive.
process.exit(0);
