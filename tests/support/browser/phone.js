// A phone in a browser, for tests: SIP over WebSocket (RFC 7118), one call at a time, audio alone.
"use strict";

const token = () => Math.random().toString(36).slice(2, 12);

class Message {
  constructor(text) {
    const end = text.indexOf("\r\n\r\n");
    this.body = text.slice(end + 4);
    this.lines = text.slice(0, end).split("\r\n");
    this.start = this.lines.shift();
    this.status = this.start.startsWith("SIP/2.0 ") ? Number(this.start.split(" ")[1]) : 0;
    this.method = this.one("CSeq").split(" ")[1];
  }
  all(name) {
    const start = name.toLowerCase() + ":";
    return this.lines.filter((line) => line.toLowerCase().startsWith(start)).map((line) => line.slice(start.length).trim());
  }
  one(name) {
    return this.all(name)[0] || "";
  }
}

class Phone {
  constructor(user, domain, options = {}) {
    Object.assign(this, { user, domain, options, host: token() + ".invalid", waiting: new Map(), seen: [], errors: [] });
    this.contact = `<sip:${user}@${this.host};transport=ws>`;
    this.cseq = 0;
  }

  connect(url) {
    this.ws = new WebSocket(url, "sip");
    this.transport = url.startsWith("wss") ? "WSS" : "WS";
    this.ws.onmessage = (event) => this.received(new Message(event.data)).catch((error) => this.errors.push(String(error)));
    return new Promise((resolve, reject) => {
      this.ws.onopen = () => resolve(true);
      this.ws.onerror = () => reject(new Error("no connection"));
    });
  }

  // -- requests of ours

  request(method, dialog, body = "", more = []) {
    const cseq = method === "ACK" ? dialog.invite : ++this.cseq;
    if (method === "INVITE") dialog.invite = cseq;
    const branch = "z9hG4bK" + token();
    const lines = [
      `${method} ${dialog.target} SIP/2.0`,
      `Via: SIP/2.0/${this.transport} ${this.host};branch=${branch}`,
      "Max-Forwards: 70",
      `From: ${dialog.local}`,
      `To: ${dialog.remote}`,
      `Call-ID: ${dialog.id}`,
      `CSeq: ${cseq} ${method}`,
      `Contact: ${this.contact}`,
      ...more,
    ];
    if (body) lines.push("Content-Type: application/sdp");
    this.ws.send(lines.join("\r\n") + `\r\nContent-Length: ${body.length}\r\n\r\n` + body);
    if (method === "ACK") return null;
    return new Promise((resolve) => this.waiting.set(branch, resolve));
  }

  dialog(remote, target) {
    const local = `<sip:${this.user}@${this.domain}>;tag=${token()}`;
    return { id: token() + token(), local, remote, target, invite: 0 };
  }

  async register() {
    const dialog = this.dialog(`<sip:${this.user}@${this.domain}>`, `sip:${this.domain}`);
    return (await this.request("REGISTER", dialog, "", ["Expires: 300"])).status;
  }

  async call(number) {
    this.current = this.dialog(`<sip:${number}@${this.domain}>`, `sip:${number}@${this.domain}`);
    await this.peer();
    return await this.offer();
  }

  // An offer, the first or a later one: {direction, restart}.
  async offer(change = {}) {
    if (change.direction) this.pc.getTransceivers()[0].direction = change.direction;
    if (change.restart) this.pc.restartIce();
    await this.pc.setLocalDescription();
    if (this.options.gathers) await this.gathered();
    const reply = await this.request("INVITE", this.current, this.pc.localDescription.sdp);
    if (reply.status >= 300) return reply.status;
    this.current.remote = reply.one("To");
    this.current.target = reply.one("Contact").replace(/^<|>.*$/g, "");
    this.request("ACK", this.current);
    await this.pc.setRemoteDescription({ type: "answer", sdp: reply.body });
    return reply.status;
  }

  async hangUp() {
    const reply = await this.request("BYE", this.current);
    this.pc.close();
    return reply.status;
  }

  // -- what comes

  async received(message) {
    if (message.status) {
      const branch = message.one("Via").split("branch=")[1].split(";")[0];
      if (message.status < 200 || !this.waiting.has(branch)) return;
      this.waiting.get(branch)(message);
      this.waiting.delete(branch);
      return;
    }
    this.seen.push(message.method);
    if (message.method === "ACK") return;
    let body = "";
    let to = message.one("To");
    if (message.method === "INVITE") {
      if (!this.current) {
        to += `;tag=${token()}`;
        const target = message.one("Contact").replace(/^<|>.*$/g, "");
        this.current = { id: message.one("Call-ID"), local: to, remote: message.one("From"), target, invite: 0 };
        await this.peer();
      }
      await this.pc.setRemoteDescription({ type: "offer", sdp: message.body });
      await this.pc.setLocalDescription();
      if (this.options.gathers) await this.gathered();
      body = this.pc.localDescription.sdp;
    }
    const lines = ["SIP/2.0 200 OK", ...message.all("Via").map((via) => `Via: ${via}`)];
    lines.push(`From: ${message.one("From")}`, `To: ${to}`, `Call-ID: ${message.one("Call-ID")}`);
    lines.push(`CSeq: ${message.one("CSeq")}`, `Contact: ${this.contact}`);
    if (body) lines.push("Content-Type: application/sdp");
    this.ws.send(lines.join("\r\n") + `\r\nContent-Length: ${body.length}\r\n\r\n` + body);
    if (message.method === "BYE") this.pc.close();
  }

  // -- media

  async peer() {
    this.pc = new RTCPeerConnection({ bundlePolicy: this.options.bundlePolicy || "balanced" });
    this.pc.ontrack = (event) => this.listen(event.streams[0] || new MediaStream([event.track]));
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: Boolean(this.options.video) });
    for (const track of stream.getTracks()) this.pc.addTrack(track, stream);
    const wanted = this.options.codecs;
    if (wanted) {
      const known = RTCRtpReceiver.getCapabilities("audio").codecs;
      const named = (codec) => wanted.includes(codec.mimeType.toLowerCase().split("/")[1]);
      this.pc.getTransceivers()[0].setCodecPreferences(known.filter(named));
    }
  }

  gathered() {
    if (this.pc.iceGatheringState === "complete") return null;
    return new Promise((resolve) => {
      this.pc.onicegatheringstatechange = () => this.pc.iceGatheringState === "complete" && resolve();
    });
  }

  listen(stream) {
    this.sink = new Audio(); // without a sink nothing is decoded
    this.sink.muted = true;
    this.sink.srcObject = stream;
    this.sink.play();
    this.audio = this.audio || new AudioContext();
    this.analyser = this.audio.createAnalyser();
    this.analyser.fftSize = 4096;
    this.audio.createMediaStreamSource(stream).connect(this.analyser);
  }

  // The loudest frequency in Hz, and its level in dB of full scale.
  loudest() {
    if (!this.analyser) return { hz: 0, db: -Infinity };
    const levels = new Float32Array(this.analyser.frequencyBinCount);
    this.analyser.getFloatFrequencyData(levels);
    const at = levels.reduce((best, level, index) => (level > levels[best] ? index : best), 0);
    return { hz: (at * this.audio.sampleRate) / this.analyser.fftSize, db: levels[at] };
  }

  async stats() {
    const found = { state: this.pc.connectionState, ice: this.pc.iceConnectionState, dtls: "", sent: 0, received: 0, lost: 0, codec: "" };
    const report = await this.pc.getStats();
    report.forEach((one) => {
      if (one.type === "outbound-rtp") found.sent += one.packetsSent;
      if (one.type === "transport") found.dtls = one.dtlsState;
      if (one.type !== "inbound-rtp") return;
      found.received += one.packetsReceived;
      found.lost += one.packetsLost;
      found.codec = one.codecId ? report.get(one.codecId).mimeType : found.codec;
    });
    return found;
  }
}
