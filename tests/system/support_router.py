"""Stands in for a home's router that lets ports in when it is asked: `nat-pmp` (RFC 6886) or `upnp` (an Internet gateway device),
at an address. After each change it prints what is let in: `mapped: PROTOCOL/OUTSIDE>INSIDE ...`. Its error output has a line
for each packet that comes, before anything is made of it."""
import http.server
import re
import socket
import struct
import sys
import threading
import time

kind, address = sys.argv[1:]
mapped = {}


def change(protocol, outside, inside):
    if inside:
        mapped[protocol, outside] = inside
    else:
        mapped.pop((protocol, outside), None)
    print("mapped:", " ".join(f"{p}/{o}>{i}" for (p, o), i in sorted(mapped.items())), flush=True)


def hear(packet):
    print("asked:", packet[:40], file=sys.stderr, flush=True)


def nat_pmp():
    begun = time.monotonic()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 5351))
    print("ready", flush=True)
    while True:
        request, client = server.recvfrom(1100)
        hear(request)
        if len(request) < 2:
            continue
        version, operation = request[:2]
        # What comes as PCP, its successor, it does not know.
        result = 1 if version else 0
        reply = struct.pack(">BBHI", 0, (128 + operation) & 255, result, int(time.monotonic() - begun))
        if result == 0 and operation == 0:
            reply += socket.inet_aton("198.51.100.7")
        elif result == 0 and operation in (1, 2) and len(request) >= 12:
            protocol = ("udp", "tcp")[operation - 1]
            inside, outside, lifetime_s = struct.unpack(">HHI", request[4:12])
            if lifetime_s:
                change(protocol, outside, inside)
            else:  # by its inner port
                for gone in [(p, o) for (p, o), i in mapped.items() if (p, i) == (protocol, inside)]:
                    change(*gone, None)
            reply += struct.pack(">HHI", inside, outside, lifetime_s)
        server.sendto(reply, client)


SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DEVICE = f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>
urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><modelName>stand-in</modelName><serviceList><service>
<serviceType>{SERVICE}</serviceType><controlURL>/control</controlURL></service></serviceList></device></root>"""


class Gateway(http.server.BaseHTTPRequestHandler):
    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(DEVICE)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.headers["SOAPAction"].strip('"').rsplit("#", 1)[1]
        value = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        given = ""
        if action == "GetExternalIPAddress":
            given = "<NewExternalIPAddress>198.51.100.7</NewExternalIPAddress>"
        elif action in ("AddPortMapping", "DeletePortMapping"):
            inside = int(value["NewInternalPort"]) if action == "AddPortMapping" else None
            change(value["NewProtocol"].lower(), int(value["NewExternalPort"]), inside)
        self.answer(f'<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
                    f'<u:{action}Response xmlns:u="{SERVICE}">{given}</u:{action}Response></s:Body></s:Envelope>')

    def log_message(self, *arguments):
        pass


def upnp():
    gateway = http.server.ThreadingHTTPServer((address, 0), Gateway)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 1900))
    server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                      socket.inet_aton("239.255.255.250") + socket.inet_aton(address))
    print("ready", flush=True)
    while True:
        request, client = server.recvfrom(2048)
        hear(request)
        if request.startswith(b"M-SEARCH"):
            server.sendto(f"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:1::upnp:rootdevice\r\nCACHE-CONTROL: max-age=1800\r\n"
                          f"LOCATION: http://{address}:{gateway.server_port}/device.xml\r\n\r\n".encode(), client)


{"nat-pmp": nat_pmp, "upnp": upnp}[kind]()
