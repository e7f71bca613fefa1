[
 {
  "signer": "project",
  "manifest_sha256": "0b5fd7e15b63773f7d09809c4d5315387596494a6248983e5609f39f2f203c6f",
  "signature": "ec8gVVniVcRF8f7U+IR1z7i4s/IN0ZBHpVPTmH++Iy6RmfKkZgB5WuUKif73pBbv93vSsXzrKB+xxqR5hBa0Cw=="
 },
 {
  "signer": "project",
  "manifest_sha256": "608678be099970f9b8ad12d1ea6a0d74288db0a51730c46b9a61542d218dfc76",
  "signature": "VC7IMN6eGyI8EY4ddrewkN0JD2A349bkplARXyWKmoqp5RZu9c3Pt+Z/MZxK6akPIBZsH+zVNsHU74ZBad5DCQ=="
 }
]
