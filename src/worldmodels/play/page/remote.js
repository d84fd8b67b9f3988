// The dream of a `wm play` server, over a socket. Comes back by itself when the socket is lost.

export async function connect(handlers) {
  const reply = await fetch("about");
  if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
  const about = await reply.json();
  let socket = null, visitor = sessionStorage.getItem("visitor") || "", waiting = 250;

  function open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const path = location.pathname.replace(/[^/]*$/, "");
    socket = new WebSocket(`${scheme}://${location.host}${path}dream?visitor=${encodeURIComponent(visitor)}`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      const length = new DataView(data).getUint32(0, true);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      const rest = new Uint8Array(data, 4 + length);
      if (header.kind === "hello") {
        visitor = header.visitor;
        sessionStorage.setItem("visitor", visitor);
        waiting = 250;
        handlers.message("");
      } else if (header.kind === "moment") {
        handlers.moment(header, rest.subarray(0, 12288), header.real ? rest.subarray(12288) : null);
      } else if (header.kind === "file") {
        handlers.file(header.name, rest);
      } else {
        handlers.message(header.text);
      }
    };
    socket.onclose = () => {
      handlers.message("The connection is lost. Trying again…");
      setTimeout(open, waiting);
      waiting = Math.min(2 * waiting, 5000);
    };
  }

  open();
  return {
    about,
    say(order) { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(order)); },
    lose() { socket.close(); }, // for tests
  };
}
