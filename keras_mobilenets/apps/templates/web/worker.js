// Gives the page from the network and, where there is none, as it was last time.
const CACHE = new URL("./", self.location).pathname;

async function answer(request) {
  try {
    const response = await fetch(request);
    if (response.ok) (await caches.open(CACHE)).put(request, response.clone());
    return response;
  } catch (error) {
    return (await (await caches.open(CACHE)).match(request, { ignoreSearch: true })) ?? Promise.reject(error);
  }
}

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const own = event.request.url.startsWith(new URL("./", self.location).href);
  if (own && event.request.method === "GET") event.respondWith(answer(event.request));
});
