// A page that is a phone: the same few commands for JsSIP and for SIP.js, and what happened as a list.
import JsSIP from 'jssip';
import * as SIP from 'sip.js';

const events = [];
window.events = events;

function note(kind, detail = '') {
  events.push({ kind, detail: String(detail), at: Date.now() / 1000 });
}

// Frames of the other side's video that were decoded, 0 while there are none.
let connection = null;
window.framesDecoded = async () => {
  let frames = 0;
  if (connection !== null) {
    (await connection.getStats()).forEach((each) => {
      if (each.type === 'inbound-rtp' && each.kind === 'video') frames += each.framesDecoded || 0;
    });
  }
  return frames;
};

const MEDIA = { audio: true, video: true };

class JsSipPhone {
  constructor({ url, user, domain, password, answer }) {
    this.domain = domain;
    this.session = null;
    this.socket = new JsSIP.WebSocketInterface(url);
    this.ua = new JsSIP.UA({
      sockets: [this.socket], uri: `sip:${user}@${domain}`, password, register_expires: 120,
      connection_recovery_min_interval: 1, connection_recovery_max_interval: 2,
    });
    this.ua.on('registered', () => note('registered'));
    this.ua.on('registrationFailed', ({ cause }) => note('registration failed', cause));
    this.ua.on('disconnected', () => note('disconnected'));
    this.ua.on('newRTCSession', ({ session, originator }) => {
      this.session = session;
      session.on('progress', () => note('ringing'));
      session.on('confirmed', () => { connection = session.connection; note('established'); });
      session.on('ended', ({ cause }) => note('ended', cause));
      session.on('failed', ({ cause }) => note('failed', cause));
      if (originator === 'remote') {
        note('incoming');
        if (answer) session.answer({ mediaConstraints: MEDIA });
      }
    });
    this.ua.start();
  }

  call(user) { this.ua.call(`sip:${user}@${this.domain}`, { mediaConstraints: MEDIA }); }
  hangUp() { this.session.terminate(); }
}

class SipJsPhone {
  constructor({ url, user, domain, password, answer }) {
    this.domain = domain;
    this.session = null;
    this.ua = new SIP.UserAgent({
      uri: SIP.UserAgent.makeURI(`sip:${user}@${domain}`), authorizationUsername: user, authorizationPassword: password,
      transportOptions: { server: url }, logBuiltinEnabled: false,
      delegate: {
        onConnect: () => this.register(),
        onDisconnect: (error) => { note('disconnected'); if (error) this.reconnect(); },
        onInvite: (invitation) => {
          note('incoming');
          this.take(invitation);
          if (answer) invitation.accept({ sessionDescriptionHandlerOptions: { constraints: MEDIA } });
        },
      },
    });
    this.ua.start();
  }

  async register() {
    this.registerer = new SIP.Registerer(this.ua, { expires: 120 });
    this.registerer.stateChange.addListener((state) => note(state === 'Registered' ? 'registered' : 'registration', state));
    await this.registerer.register();
  }

  reconnect() {
    this.ua.reconnect().catch(() => setTimeout(() => this.reconnect(), 500));
  }

  take(session) {
    this.session = session;
    session.stateChange.addListener((state) => {
      if (state === 'Established') {
        connection = session.sessionDescriptionHandler.peerConnection;
        note('established');
      } else if (state === 'Terminated') {
        note('ended');
      }
    });
  }

  call(user) {
    const target = SIP.UserAgent.makeURI(`sip:${user}@${this.domain}`);
    const inviter = new SIP.Inviter(this.ua, target, { sessionDescriptionHandlerOptions: { constraints: MEDIA } });
    this.take(inviter);
    inviter.invite({ requestDelegate: { onProgress: ({ message }) => { if (message.statusCode === 180) note('ringing'); } } });
  }

  hangUp() {
    if (this.session.state === 'Established') this.session.bye();
    else if (this.session.cancel) this.session.cancel();
    else this.session.reject();
  }
}

window.start = (library, settings) => {
  window.phone = library === 'jssip' ? new JsSipPhone(settings) : new SipJsPhone(settings);
};
