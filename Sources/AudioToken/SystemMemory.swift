import Glibc

/// What the machine, and the control groups that this process is in, leave free.
package struct SystemMemory: Sendable {
  /// Of the machine, in bytes.
  package let total: Int
  /// What programs could take without swapping, beside what this one has; the least over the control groups.
  package let free: Int
  /// The least limit of a control group, where there is one.
  package let limit: Int?

  /// All that is free but an eighth, and 32 MiB at least, which are left to others.
  package var usable: Int { free - max(32 << 20, free / 8) }

  /// - Parameters:
  ///   - root: what the files of the system are under.
  ///   - own: bytes that this process holds, which count as free.
  package static func available(root: String = "", own: Int = ProcessMemory.now().resident) -> SystemMemory {
    let information = keyed(root + "/proc/meminfo", scale: 1024)
    let total = information["MemTotal"] ?? 0
    var free = (information["MemAvailable"] ?? total) + own
    var limit: Int?
    for group in groups(root) where group.limit < total {
      limit = min(limit ?? .max, group.limit)
      free = min(free, group.limit - group.held + own)
    }
    return SystemMemory(total: total, free: max(0, free), limit: limit)
  }

  private struct Group {
    let limit: Int
    /// Without the files' pages, which go when memory is short.
    let held: Int
  }

  /// The memory groups of this process, innermost first: version 2, or version 1 beside it.
  private static func groups(_ root: String) -> [Group] {
    var groups: [Group] = []
    for line in text(root + "/proc/self/cgroup").split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      let isUnified = fields[1].isEmpty
      guard isUnified || fields[1].split(separator: ",").contains("memory") else { continue }
      let mount = root + "/sys/fs/cgroup" + (isUnified ? "" : "/memory")
      var path = String(fields[2])
      while true {
        let folder = mount + (path == "/" ? "" : path)
        let names = isUnified ? ("memory.max", "memory.current") : ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if let limit = number(folder + "/" + names.0), let used = number(folder + "/" + names.1) {
          let statistics = keyed(folder + "/memory.stat", scale: 1)
          let files = (statistics["inactive_file"] ?? 0) + (statistics["active_file"] ?? 0)
          groups.append(Group(limit: limit, held: max(0, used - files)))
        }
        guard path != "/", let slash = path.lastIndex(of: "/") else { break }
        path = slash == path.startIndex ? "/" : String(path[..<slash])
      }
    }
    return groups
  }

  private static func number(_ path: String) -> Int? {
    Int(text(path).split(whereSeparator: { $0.isWhitespace }).first ?? "")
  }

  /// Lines of a name, perhaps a colon, and a number.
  static func keyed(_ path: String, scale: Int) -> [String: Int] {
    var values: [String: Int] = [:]
    for line in text(path).split(separator: "\n") {
      let words = line.split(whereSeparator: { " :\t".contains($0) })
      guard words.count >= 2, let value = Int(words[1]) else { continue }
      values[String(words[0])] = value.multipliedReportingOverflow(by: scale).partialValue
    }
    return values
  }

  /// A small file of the system, empty where it cannot be read.
  private static func text(_ path: String) -> String {
    guard let stream = fopen(path, "r") else { return "" }
    defer { fclose(stream) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&bytes, 1, bytes.count, stream)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}
