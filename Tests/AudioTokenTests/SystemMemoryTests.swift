import Foundation
import Testing

@testable import AudioToken

/// What the machine is said to have free, from files as the kernel writes them.
@Suite struct SystemMemoryTests {
  private static let total = 8_000_000 * 1024
  private static let own = 12_345_678

  /// A root folder with the files of `groups`: path to content.
  private func free(_ files: [String: String]) throws -> (free: Int, limit: Int?) {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent("system-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: root) }
    let meminfo = "MemTotal:        8000000 kB\nMemFree:          100 kB\nMemAvailable:    6000000 kB\n"
    for (path, content) in files.merging(["proc/meminfo": meminfo], uniquingKeysWith: { $1 }) {
      let file = root.appendingPathComponent(path)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(content.utf8).write(to: file)
    }
    let memory = SystemMemory.available(root: root.path, own: Self.own)
    #expect(memory.total == Self.total)
    return (memory.free, memory.limit)
  }

  private func expect(_ found: (free: Int, limit: Int?), _ free: Int, limit: Int?) {
    #expect(found.free == free + Self.own)
    #expect(found.limit == limit)
  }

  @Test("Without control groups it is what the kernel calls available")
  func machine() throws {
    expect(try free([:]), 6_000_000 * 1024, limit: nil)
    expect(try free(["proc/self/cgroup": "0::/\n"]), 6_000_000 * 1024, limit: nil)
  }

  @Test("A control group's limit counts, less what is held there besides file pages")
  func unified() throws {
    let files = [
      "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
      "sys/fs/cgroup/a/b/memory.current": "5000000\n", "sys/fs/cgroup/a/memory.max": "500000000\n",
      "sys/fs/cgroup/a/memory.current": "300000000\n",
      "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 100000000\nactive_file 50000000\n",
    ]
    expect(try free(files), 350_000_000, limit: 500_000_000)
  }

  @Test("So does one of the first version, and a broken file counts for nothing")
  func firstVersion() throws {
    let folder = "sys/fs/cgroup/memory/x/"
    let files = [
      "proc/self/cgroup": "5:cpu:/\n4:memory:/x\nnonsense\n0::/\n", folder + "memory.limit_in_bytes": "700000000\n",
      folder + "memory.usage_in_bytes": "200000000\n", folder + "memory.stat": "what\ninactive_file x\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
      "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    ]
    expect(try free(files), 500_000_000, limit: 700_000_000)
  }
}
