import Foundation
import Testing
import WeightFile

@testable import Models

@Suite struct WeightWindowTests {
  private static let megabyte = 1 << 20

  /// Resident bytes of the file's mapping, by the kernel's account.
  private func resident(_ path: String) throws -> Int {
    var isInside = false
    var total = 0
    for line in try String(contentsOfFile: "/proc/self/smaps", encoding: .utf8).split(separator: "\n") {
      if line.first.map({ $0.isHexDigit && !$0.isUppercase }) == true { isInside = line.hasSuffix(path) }
      guard isInside, line.hasPrefix("Rss:") else { continue }
      total += 1024 * (line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0)
    }
    return total
  }

  @Test("No more of the weights is in memory than the window allows, and every byte can be read at any time")
  func budget() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("window-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let count = 12
    let tensors = (0..<count).map {
      TensorDeclaration(name: "unet.\($0)", type: .i8, dimensions: [Self.megabyte])
    }
    let writer = try WeightFileWriter(path: path, metadata: Metadata(file: path), tensors: tensors)
    for (index, tensor) in tensors.enumerated() {
      try [UInt8](repeating: UInt8(index + 1), count: Self.megabyte).withUnsafeBytes {
        try writer.write(tensor.name, $0)
      }
    }
    try writer.finish()
    let file = try WeightFile(path: path)
    let stage = file.tensors[0].offset..<file.byteCount
    let window = WeightWindow(file, stage: stage, budget: 3 * Self.megabyte)
    var uses = 0
    window.onUse = { uses += 1 }
    // Two passes over the stage; one tensor is read out of order in each.
    let order = [0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10, 11]
    for index in order + order {
      let bytes = UnsafeRawBufferPointer(start: file.bytes(of: file.tensors[index]), count: Self.megabyte)
      window.willUse(bytes)
      #expect(bytes.allSatisfy { $0 == UInt8(index + 1) }, "tensor \(index)")
      // What the system maps around a page that is read: 64 KiB on either side.
      #expect(try resident(path) <= 3 * Self.megabyte + 256 << 10, "tensor \(index)")
    }
    #expect(uses == 2 * count)
    file.release(stage)
    #expect(try resident(path) < Self.megabyte)
  }
}
