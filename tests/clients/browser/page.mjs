// The page: the main job by clients that run in a browser, each from the origin of the page.

import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { connectClient } from '../connect/connect.mjs';
import { mainJob } from '../connect/job.mjs';
import { TenancyService } from 'gen/agentrouter/tenancy/v1/tenancy_pb.js';
import { grpcWebClient } from './grpc_web.mjs';

/** Runs the main job; tells the methods of HTTP by which its calls went. */
globalThis.runMainJob = async (protocol, baseUrl, customer, operatorKey) => {
  const methods = new Set();
  const recorded = (input, init) => {
    methods.add(init.method);
    return fetch(input, init);
  };
  const clients = {
    connect: () => connectClient(createConnectTransport({ baseUrl, useHttpGet: true, fetch: recorded })),
    'grpc-web': () => connectClient(createGrpcWebTransport({ baseUrl, fetch: recorded })),
    // The other library, with messages in base64, and with binary ones.
    'grpc-web-text': () => grpcWebClient(baseUrl, 'text'),
    'grpc-web-binary': () => grpcWebClient(baseUrl, 'binary'),
  };
  await mainJob(clients[protocol](), customer, operatorKey);
  return [...methods].sort();
};

/** Makes a call without a key; tells how it was refused. */
globalThis.tryCall = async (baseUrl) => {
  const client = connectClient(createConnectTransport({ baseUrl }));
  try {
    return await client.call(TenancyService.method.listCustomers, {}, { token: 'none' });
  } catch (error) {
    return client.refusal(error).reason;
  }
};
